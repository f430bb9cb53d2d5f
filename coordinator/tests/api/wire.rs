//! HTTP itself: every refusal is a problem, and everything is described.

use certs::{dial::Dialer, identity::Identity, live::http_client, tls::ServerExpectation};
use protocol::error::{PROBLEM_JSON, Problem, ProblemKind};
use reqwest::{Client, Method, Response};

use crate::support::Network;

fn raw(network: &Network) -> Client {
    let identity = Identity::load(&network.config.data.join("admin")).unwrap();
    http_client(&identity, &ServerExpectation::Coordinator, &Dialer::default()).unwrap()
}

async fn refusal(response: Response) -> (u16, ProblemKind) {
    assert_eq!(response.headers()["content-type"], PROBLEM_JSON);
    let status = response.status().as_u16();
    let problem: Problem = response.json().await.unwrap();
    assert_eq!(problem.status, status);
    (status, problem.kind)
}

#[tokio::test]
async fn every_refusal_is_a_problem_with_a_stable_type() {
    let network = Network::start().await;
    let (http, url) = (raw(&network), network.url());
    let send = |method: Method, path: &str, body: Option<Vec<u8>>| {
        let mut request = http.request(method, format!("{url}{path}"));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        async move { refusal(request.send().await.unwrap()).await }
    };
    use Method as M;
    use ProblemKind as K;
    assert_eq!(send(M::GET, "/v1/nothing", None).await, (404, K::NotFound));
    assert_eq!(send(M::DELETE, "/v1/status", None).await, (405, K::BadRequest));
    assert_eq!(send(M::GET, "/v1/definitions/planet", None).await, (404, K::NotFound));
    assert_eq!(send(M::GET, "/v1/runs?color=red", None).await, (400, K::BadRequest));
    assert_eq!(send(M::GET, "/v1/runs?cursor=x", None).await, (400, K::BadRequest));
    assert_eq!(send(M::POST, "/v1/invites", Some(b"{".to_vec())).await, (400, K::BadRequest));
    let unknown = br#"{"role":"agent","name":"a","sight":"x"}"#.to_vec();
    assert_eq!(send(M::POST, "/v1/invites", Some(unknown)).await, (400, K::BadRequest));
    let long = vec![b' '; (1 << 20) + 1];
    assert_eq!(send(M::POST, "/v1/invites", Some(long)).await, (413, K::TooLarge));
    assert_eq!(send(M::POST, "/v1/invites", None).await, (400, K::BadRequest));
}

#[tokio::test]
async fn health_and_metrics_are_served_and_the_description_names_every_endpoint() {
    let network = Network::start().await;
    let (http, url) = (raw(&network), network.url());
    for path in ["/healthz", "/readyz"] {
        assert_eq!(http.get(format!("{url}{path}")).send().await.unwrap().status(), 200);
    }
    let metrics = http.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("mirrornet_identities{role=\"admin\"} 1\n"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"));
    let document: serde_json::Value =
        http.get(format!("{url}/v1/openapi.json")).send().await.unwrap().json().await.unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
}

#[tokio::test]
async fn f76_what_a_resource_does_not_take_is_answered_with_what_it_takes() {
    let network = Network::start().await;
    let (http, url) = (raw(&network), network.url());
    for (path, takes) in [
        ("/v1/status", &["GET", "HEAD"][..]),
        ("/v1/mandates", &["POST"]),
        ("/v1/definitions/tree/alpha", &["GET", "HEAD", "DELETE"]),
    ] {
        for method in [Method::PUT, Method::OPTIONS] {
            let answer = http.request(method.clone(), format!("{url}{path}")).send().await.unwrap();
            assert_eq!(answer.status(), 405, "{method} {path}");
            let mut allowed: Vec<_> =
                answer.headers()["allow"].to_str().unwrap().split(',').map(str::trim).collect();
            allowed.sort_unstable();
            let mut takes = takes.to_vec();
            takes.sort_unstable();
            assert_eq!(allowed, takes, "{method} {path}");
        }
    }
}

//! What is read from an agent: `/healthz`, `/readyz` and `/metrics` by monitoring, `/status` by
//! programs and `/` by people, all by plain HTTP, also while the coordinator is away.
//!
//! An agent listens to nobody. Only where `monitor` names an address, best on the loopback, it
//! answers these, which change nothing and tell no secret.

mod page;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use protocol::open_metrics::{self, Kind, Text};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::Agent,
    status::{self, State, Status},
};

/// Connections at a time.
const MAX_CONNECTIONS: usize = 16;
/// How long a connection may live; a scrape takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(30);

/// The address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (monitor); is another program using that port?")]
pub struct Error {
    /// What was configured.
    address: String,
    /// What the system says.
    source: io::Error,
}

/// Takes the address.
pub async fn bind(address: &str) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error { address: address.to_owned(), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let taken = listener.local_addr().map_err(failed)?;
    Ok((listener, taken))
}

/// Answers until `shutdown`.
pub async fn serve(listener: TcpListener, agent: Arc<Agent>, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let agent = Arc::clone(&agent);
        let service = service_fn(move |request: Request<Incoming>| {
            let response = answer(&agent, request.method(), request.uri().path());
            async move { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(DEADLINE);
            let served = http.serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(DEADLINE, served).await;
            drop(place);
        });
    }
}

fn answer(agent: &Agent, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
    }
    let status = status::status(agent);
    match (path, status) {
        ("/healthz", _) => text(StatusCode::OK, "ok\n".into()),
        ("/readyz" | "/metrics" | "/status" | "/", Err(error)) => {
            text(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", crate::chain(&error)))
        }
        ("/readyz", Ok(status)) if status.revision.is_none() => {
            text(StatusCode::SERVICE_UNAVAILABLE, "there are no orders yet\n".into())
        }
        ("/readyz", Ok(_)) => text(StatusCode::OK, "ok\n".into()),
        ("/metrics", Ok(status)) => {
            of_type(text(StatusCode::OK, render(&status)), open_metrics::MEDIA_TYPE)
        }
        ("/status", Ok(status)) => match serde_json::to_string_pretty(&status) {
            Ok(json) => of_type(text(StatusCode::OK, json + "\n"), "application/json"),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        ("/", Ok(status)) => {
            let html = text(StatusCode::OK, page::render(&status));
            let mut response = of_type(html, "text/html; charset=utf-8");
            let policy = header::HeaderValue::from_static(page::POLICY);
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
            response
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /, /status, /metrics, /healthz and /readyz\n".into(),
        ),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    of_type(response, "text/plain; charset=utf-8")
}

fn of_type(mut response: Response<Full<Bytes>>, media: &'static str) -> Response<Full<Bytes>> {
    let media = header::HeaderValue::from_static(media);
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response
}

fn render(status: &Status) -> String {
    let mut text = Text::default();
    let help = "When the certificate ends, in seconds since 1970.";
    text.gauge("mirrornet_certificate_end_seconds", help, status.certificate_until.as_second());
    if let Some(until) = status.head_until {
        let help = "When the signed head ends, in seconds since 1970.";
        text.gauge("mirrornet_head_end_seconds", help, until.as_second());
    }
    if let Some(revision) = status.revision {
        text.gauge("mirrornet_revision", "Number of the orders.", revision.0);
    }
    let help = "Whether the coordinator answered when it was last asked.";
    text.gauge("mirrornet_coordinator_answers", help, u8::from(status.trouble.is_none()));
    let help = "Reports that the coordinator has not taken yet.";
    text.gauge("mirrornet_unsent_reports", help, status.unsent_reports);
    let help = "Assignments that wait for a mandate of the network's definitions key.";
    text.gauge("mirrornet_assignments_without_mandate", help, status.without_mandate.len());
    let assignments: Vec<_> =
        status.assignments.iter().map(|one| (one.name.to_string(), one)).collect();
    text.family("mirrornet_assignment", Kind::Gauge, "1 for the state that an assignment is in.");
    for (name, one) in &assignments {
        for state in State::ALL {
            let labels = [("assignment", name.as_str()), ("state", state.name())];
            text.sample("mirrornet_assignment", &labels, u8::from(one.state == state));
        }
    }
    let mut each =
        |name: &str, help: &str, value: &dyn Fn(&status::AssignmentStatus) -> Option<u64>| {
            text.family(name, Kind::Gauge, help);
            for (assignment, one) in &assignments {
                if let Some(value) = value(one) {
                    text.sample(name, &[("assignment", assignment)], value);
                }
            }
        };
    each("mirrornet_held_generation", "The generation that is held.", &|one| {
        one.held.map(|held| held.generation.0)
    });
    each("mirrornet_target_generation", "The generation that is to be held.", &|one| {
        one.target.map(|target| target.generation.0)
    });
    each("mirrornet_files", "Files that are kept.", &|one| Some(one.files));
    each("mirrornet_content_bytes", "Their content bytes.", &|one| Some(one.bytes));
    each("mirrornet_withdrawn_paths", "Removed paths that stay readable for now.", &|one| {
        Some(one.withdrawn.map_or(0, |withdrawn| withdrawn.paths))
    });
    each("mirrornet_damaged_entries", "Published entries that are damaged still.", &|one| {
        Some(one.scrub.as_ref().map_or(0, |scrub| scrub.damaged.len() as u64))
    });
    each("mirrornet_scrubbed_bytes", "Bytes read in the scrub that is under way.", &|one| {
        Some(one.scrub.as_ref().map_or(0, |scrub| scrub.checked.bytes))
    });
    let help = "When the last whole scrub ended, since 1970.";
    each("mirrornet_last_scrub_seconds", help, &|one| {
        u64::try_from(one.scrub.as_ref()?.last?.as_second()).ok()
    });
    each("mirrornet_last_run_seconds", "When the last run ended, since 1970.", &|one| {
        one.last_run.and_then(|at| u64::try_from(at.as_second()).ok())
    });
    text.finish()
}

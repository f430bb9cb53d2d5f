//! The enrolling program's side.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use protocol::{
    fingerprint::KeyFingerprint,
    v1::enroll::{EnrollRequest, EnrollResponse, MAX_RESPONSE_LEN},
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Error, Invite};
use crate::{
    authority::RootPin,
    dial::Dialer,
    identity::{
        Role,
        directory::{Identity, Membership, Pending},
    },
    root::TrustedRoot,
    sha256,
    tls::{self, ClientStream, connect_enrollment},
};

/// How often it is asked again whether an admin has decided.
const ASK_AGAIN: Duration = Duration::from_secs(2);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How a program enrolls.
#[derive(Debug, Clone)]
pub struct EnrollOptions {
    /// What this program is; none for one that takes whatever the invite says.
    pub role: Option<Role>,
    /// How the enroll port is reached.
    pub dialer: Dialer,
    /// Host names or addresses at which this program serves; publishers only.
    pub server_names: Vec<String>,
    /// Longest wait for the connection, and again for the answer.
    pub deadline: Duration,
    /// Longest wait for an admin, where the invite wants approval.
    pub approval: Duration,
    /// Is told once, when that wait begins, what the admin has to compare.
    pub waiting: fn(&KeyFingerprint),
}

impl Default for EnrollOptions {
    fn default() -> Self {
        Self {
            role: None,
            dialer: Dialer::default(),
            server_names: Vec::new(),
            deadline: Duration::from_secs(30),
            approval: Duration::from_secs(60 * 60),
            waiting: |fingerprint| tracing::info!(%fingerprint, "waiting for an admin's approval"),
        }
    }
}

/// Uses `invite` to become an identity in the directory `data`.
///
/// `check` tries the new identity (asks the API who it is); only when that works does it take
/// effect. May be called again after any failure or crash: the same keys are used, and the
/// coordinator gives the same certificate. Where the invite wants approval, this asks again until an
/// admin has decided.
pub async fn enroll<F, E>(
    invite: &Invite,
    data: &Path,
    options: &EnrollOptions,
    check: impl FnOnce(Arc<Identity>) -> F,
) -> Result<Arc<Identity>, Error>
where
    F: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    let pending = Pending::enroll(data, &options.server_names)?;
    let response = answered(invite, &pending, options).await?;
    if !holds_pinned_root(&response.certificates.ca, invite.pin) {
        return Err(Error::RootMissing);
    }
    let root = TrustedRoot::pin(&response.root).map_err(|error| Error::Root(Box::new(error)))?;
    let root = root.root();
    if root.network != response.network || !holds_pinned_root(&root.authorities, invite.pin) {
        return Err(Error::RootMissing);
    }
    let membership = Membership::new(&response, invite.url.clone(), options.server_names.clone());
    Ok(pending.install(&membership, &response.certificates, check).await?)
}

/// Asks until there is an answer.
async fn answered(
    invite: &Invite,
    pending: &Pending,
    options: &EnrollOptions,
) -> Result<EnrollResponse, Error> {
    let until = Instant::now() + options.approval;
    let fingerprint = super::key_fingerprint(pending.keys(), &pending.signing_key());
    let mut waits = false;
    loop {
        match ask(invite, pending, options).await {
            Ok(Answer::Member(response)) => return Ok(*response),
            Ok(Answer::Waits) if !waits => {
                waits = true;
                (options.waiting)(&fingerprint);
            }
            Ok(Answer::Waits) => {}
            // The coordinator may be restarted while an admin looks.
            Err(Error::Connect { .. } | Error::Exchange { .. } | Error::Deadline { .. })
                if waits => {}
            Err(error) => return Err(error),
        }
        if until.saturating_duration_since(Instant::now()) < ASK_AGAIN {
            return Err(Error::NotApproved { fingerprint });
        }
        sleep(ASK_AGAIN).await;
    }
}

enum Answer {
    Member(Box<EnrollResponse>),
    Waits,
}

async fn ask(invite: &Invite, pending: &Pending, options: &EnrollOptions) -> Result<Answer, Error> {
    let url = || invite.url.clone();
    let connection =
        connect_enrollment(&options.dialer, invite.pin, invite.address(), options.deadline)
            .await
            .map_err(|source| Error::Connect { url: url(), source })?;
    let nonce: [u8; 32] = crate::random()?;
    let mut request = EnrollRequest {
        invite: invite.id.clone(),
        role: options.role,
        keys: pending.keys().clone(),
        signing_key: pending.signing_key(),
        nonce: protocol::dsse::Bytes(nonce.to_vec()),
        proof: protocol::dsse::Bytes::default(),
    };
    super::prove(&mut request, &invite.secret, &connection.exporter);

    let exchange = exchange(connection.stream, &invite.url, "/enroll", &request);
    let (status, body) = timeout(options.deadline, exchange)
        .await
        .map_err(|_| Error::Deadline { url: url(), seconds: options.deadline.as_secs() })?
        .map_err(|source| Error::Exchange { url: url(), source })?;
    if !status.is_success() {
        let (status, detail) = refused(status, &body);
        return Err(Error::Refused { status, detail });
    }
    if status == StatusCode::ACCEPTED {
        return Ok(Answer::Waits);
    }
    let response: EnrollResponse = serde_json::from_slice(&body)
        .map_err(|error| Error::Exchange { url: url(), source: error.into() })?;
    if let Some(wanted) = options.role.filter(|wanted| *wanted != response.role) {
        return Err(Error::OtherRole { invited: response.role, wanted });
    }
    if response.network != connection.server.network {
        return Err(Error::OtherNetwork {
            server: connection.server.network.to_string(),
            answered: response.network.to_string(),
        });
    }
    Ok(Answer::Member(Box::new(response)))
}

/// Sends `request` to `path` of the enroll port at `url`, to which `stream` leads.
pub(crate) async fn exchange(
    stream: ClientStream,
    url: &str,
    path: &str,
    request: &impl Serialize,
) -> Result<(StatusCode, Bytes), BoxError> {
    let host = url.strip_prefix("https://").unwrap_or(url);
    let request = Request::post(path)
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(serde_json::to_vec(request)?)))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let response: http::Response<Incoming> = sender.send_request(request).await?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_RESPONSE_LEN).collect().await?;
    Ok((head.status, body.to_bytes()))
}

/// The status, and what problem details (RFC 9457) say, in one short line.
pub(crate) fn refused(status: StatusCode, body: &[u8]) -> (u16, String) {
    #[derive(Deserialize)]
    struct Problem {
        detail: Option<String>,
        title: Option<String>,
    }
    let problem: Option<Problem> = serde_json::from_slice(body).ok();
    let text = problem.and_then(|problem| problem.detail.or(problem.title));
    let text = text.unwrap_or_else(|| "no reason was given".into());
    let line = text.chars().filter(|character| !character.is_control()).take(500).collect();
    (status.as_u16(), line)
}

fn holds_pinned_root(pem: &str, pin: RootPin) -> bool {
    let roots = tls::certificates_from_pem(pem).unwrap_or_default();
    roots.iter().any(|root| {
        X509Certificate::from_der(root)
            .is_ok_and(|(_, root)| sha256(root.public_key().raw) == pin.0)
    })
}

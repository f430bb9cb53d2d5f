//! What becomes of a certificate that is authentic and no longer good.
//!
//! In TLS 1.3 a client's handshake ends before the server has looked at its certificate, so an
//! alert races with the client's first request. An HTTP library that finds its connection closed
//! before it has sent anything says "connection closed", and why is lost: an agent that was revoked
//! would take it for an outage and go on. So whoever proves to hold a certificate that this network
//! made gets through the handshake, to hear why it gets nothing else: every request is answered
//! with the same problem, no handler is reached, no place in the registry is taken, and the
//! connection ends soon. What was never this network's is still refused in the handshake.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use protocol::error::{PROBLEM_JSON, Problem, ProblemKind};

use super::ConnectionRegistry;
use crate::{clock, identity::PeerIdentity};

/// Most refused connections that are answered at once; more wait, and are closed if it takes long.
pub(super) const MAX_AT_ONCE: usize = 64;
/// How long a refused client is given beyond its time to take the last answer.
pub(super) const LAST_ANSWER: Duration = Duration::from_secs(1);
/// Most bytes of a request that are read before it is answered, so that a client that sends first
/// and reads then hears the answer.
const MAX_READ: usize = 1024 * 1024;

/// Why a certificate is no longer good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    Revoked,
    Expired,
}

impl Lost {
    /// What the certificate of `identity` has lost, if anything.
    pub(super) fn of(identity: &PeerIdentity, registry: &ConnectionRegistry) -> Option<Self> {
        if registry.is_revoked(&identity.serial) {
            return Some(Self::Revoked);
        }
        // To the second, and the last one still counts: so does the check of the chain.
        let over = clock::now().as_second() > identity.not_after.as_second();
        over.then_some(Self::Expired)
    }

    fn problem(self, identity: &PeerIdentity) -> Problem {
        match self {
            Self::Revoked => ProblemKind::Revoked.with(format!(
                "{identity} was revoked; what it holds stays as it is. An admin can invite it again"
            )),
            Self::Expired => ProblemKind::Expired.with(format!(
                "the certificate of {identity} expired at {}, or one of the two clocks is wrong; compare the clocks, then enroll again with a new invite",
                identity.not_after
            )),
        }
    }

    /// The answer to every request under that certificate.
    pub(super) fn answer(self, identity: &PeerIdentity) -> Answer {
        let problem = self.problem(identity);
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::FORBIDDEN);
        let body = Bytes::from(serde_json::to_vec(&problem).unwrap_or_default());
        Answer { status, body }
    }
}

/// One answer, whatever was asked.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    status: StatusCode,
    body: Bytes,
}

impl Answer {
    /// Answers `request`, after its body.
    pub(super) async fn give(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let mut body = request.into_body();
        let mut read = 0;
        while read < MAX_READ
            && let Some(Ok(frame)) = body.frame().await
        {
            read += frame.data_ref().map_or(0, Bytes::len);
        }
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let media = HeaderValue::from_static(PROBLEM_JSON);
        response.headers_mut().insert(header::CONTENT_TYPE, media);
        Ok(response)
    }
}

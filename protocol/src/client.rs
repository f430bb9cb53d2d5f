//! The typed HTTP client of the API, for daemons, `mirrorctl` and third parties.
//!
//! It is given a source of `reqwest` clients rather than one client: when a certificate is
//! renewed, the whole client is replaced (pooled connections would go on showing the old
//! certificate), and every request takes the newest.

mod endpoints;

use std::{fmt, sync::Arc, time::Duration};

use reqwest::{Method, Response, StatusCode};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::Problem;

/// Largest answer that is read, in bytes.
pub const MAX_ANSWER: usize = 64 << 20;
/// Longest time for anything but a long poll.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Gives the `reqwest` client to use now.
pub type HttpSource = Arc<dyn Fn() -> reqwest::Client + Send + Sync>;

/// Talks to a coordinator.
#[derive(Clone)]
pub struct Client {
    base: String,
    http: HttpSource,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer: no connection, a refused certificate, a deadline.
    #[error("cannot reach the coordinator at {url}")]
    Transport {
        /// What was asked.
        url: String,
        /// What the connection said.
        source: reqwest::Error,
    },
    /// The coordinator refused, and says why.
    #[error("the coordinator answers: {0}")]
    Problem(Problem),
    /// The answer is not what this version understands.
    #[error("the coordinator's answer to {url} cannot be read (status {status}): {reason}")]
    Unreadable {
        /// What was asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// The problem that the coordinator named, if it answered at all.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::Transport { .. } | Self::Unreadable { .. } => None,
        }
    }
}

impl Client {
    /// A client of the API at `base` (`https://HOST:PORT`).
    pub fn new(base: impl Into<String>, http: HttpSource) -> Self {
        Self { base: base.into().trim_end_matches('/').to_owned(), http }
    }

    /// The API's address.
    pub fn base(&self) -> &str {
        &self.base
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.answer(Method::GET, path, None::<&()>, DEADLINE).await
    }

    async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Error> {
        self.answer(Method::POST, path, Some(body), DEADLINE).await
    }

    /// Sends a body and expects no answer but success.
    async fn send<B: Serialize>(&self, method: Method, path: &str, body: &B) -> Result<(), Error> {
        let (url, response) = self.request(method, path, Some(body), DEADLINE).await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(refusal(url, response).await)
    }

    /// Asks for something newer than what the path names; `None` when the wait ended without.
    async fn poll<T: DeserializeOwned>(
        &self,
        path: &str,
        wait: Duration,
    ) -> Result<Option<T>, Error> {
        let (url, response) = self.request(Method::GET, path, None::<&()>, wait + DEADLINE).await?;
        match response.status() {
            StatusCode::NOT_MODIFIED => Ok(None),
            status if status.is_success() => read(url, response).await.map(Some),
            _ => Err(refusal(url, response).await),
        }
    }

    async fn answer<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        deadline: Duration,
    ) -> Result<T, Error> {
        let (url, response) = self.request(method, path, body, deadline).await?;
        if response.status().is_success() {
            return read(url, response).await;
        }
        Err(refusal(url, response).await)
    }

    async fn request<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        deadline: Duration,
    ) -> Result<(String, Response), Error> {
        let url = format!("{}{path}", self.base);
        let mut request = (self.http)().request(method, &url).timeout(deadline);
        if let Some(body) = body {
            request = request.json(body);
        }
        match request.send().await {
            Ok(response) => Ok((url, response)),
            Err(source) => Err(Error::Transport { url, source }),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish_non_exhaustive()
    }
}

async fn read<T: DeserializeOwned>(url: String, response: Response) -> Result<T, Error> {
    let status = response.status().as_u16();
    let body = bounded(&url, response).await?;
    serde_json::from_slice(&body).map_err(|error| Error::Unreadable {
        url,
        status,
        reason: error.to_string(),
    })
}

async fn refusal(url: String, response: Response) -> Error {
    let status = response.status().as_u16();
    match bounded(&url, response).await {
        Ok(body) => match serde_json::from_slice(&body) {
            Ok(problem) => Error::Problem(problem),
            Err(_) => Error::Unreadable {
                url,
                status,
                reason: "it is not a problem of this API; is this a coordinator?".into(),
            },
        },
        Err(error) => error,
    }
}

async fn bounded(url: &str, mut response: Response) -> Result<Vec<u8>, Error> {
    let status = response.status().as_u16();
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > MAX_ANSWER => {
                let reason = format!("it is longer than {MAX_ANSWER} bytes");
                return Err(Error::Unreadable { url: url.to_owned(), status, reason });
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(source) => return Err(Error::Transport { url: url.to_owned(), source }),
        }
    }
}

//! What went wrong, and what an admin can do about it.

use std::{fmt::Write as _, io, path::PathBuf};

use certs::{identity::directory, tls::Refusal};
use protocol::{
    client,
    error::{Problem, ProblemKind},
};

/// Why a verb did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It was called wrongly, in a way that only shows when the arguments are looked at together.
    #[error("{0}")]
    Usage(String),
    /// There is no identity to act under.
    #[error(
        "there is no identity in {}: get an invite from an admin of the network and use it with `mirrorctl login INVITE`, or name the identity's directory with --identity (`coordinator init` leaves the first admin's in DATA/admin)",
        .0.display()
    )]
    NotLoggedIn(PathBuf),
    /// The identity cannot be used.
    #[error("the identity in {} cannot be used", dir.display())]
    Identity { dir: PathBuf, source: Box<directory::Error> },
    /// The coordinator did not answer, or refused.
    #[error(transparent)]
    Api(#[from] client::Error),
    /// A file could not be read or written.
    #[error("cannot {verb} {}", path.display())]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    /// Printing failed.
    #[error("cannot print")]
    Print(#[from] io::Error),
    /// The admin did not agree.
    #[error("nothing was changed")]
    Declined,
    /// It was done in part; the rest was told as it happened.
    #[error("{0}")]
    Incomplete(String),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl Error {
    /// Called wrongly: exit code 2.
    pub(super) fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_))
    }

    /// Whoever reads our output has gone away, which is no failure of ours.
    pub(super) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Print(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The problem that the coordinator named, if it did.
    pub(super) fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Api(error) => error.problem(),
            _ => None,
        }
    }

    /// The whole story in one text: what happened, why, and what to do.
    pub(super) fn story(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            // Libraries repeat their sources; a reader does not need that.
            if !text.contains(&cause_text) {
                write!(text, ": {cause_text}").unwrap_or_default();
            }
            next = cause.source();
        }
        if let Some(advice) = self.advice() {
            write!(text, "\n{advice}").unwrap_or_default();
        }
        text
    }

    fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Api(client::Error::Transport { source, .. }) => {
                Some(match certs::tls::refusal(source) {
                    Some(Refusal::Revoked) => REVOKED,
                    Some(Refusal::Expired) => EXPIRED,
                    Some(Refusal::UnknownAuthority) => {
                        "This identity belongs to another network; choose another with --identity."
                    }
                    Some(Refusal::CertificateRequired | Refusal::NotAccepted) => NOT_ACCEPTED,
                    Some(Refusal::ServerOutOfTime) => {
                        "The coordinator's certificate is not valid at this machine's time; compare both clocks."
                    }
                    Some(Refusal::ServerNotTrusted) => {
                        "What answers there is not this network's coordinator, or not under that name; check its address and whether something stands in between."
                    }
                    None => {
                        "Check that the coordinator runs, and that its address and port can be reached from here (proxies are taken from HTTPS_PROXY). Mirrors keep serving meanwhile."
                    }
                })
            }
            Self::Api(client::Error::Problem(problem)) => match problem.kind {
                ProblemKind::Revoked => Some(REVOKED),
                ProblemKind::Expired => Some(EXPIRED),
                ProblemKind::Unauthenticated => Some(NOT_ACCEPTED),
                ProblemKind::Forbidden => Some(
                    "`mirrorctl whoami` shows the identity and its role; changes need an admin's.",
                ),
                ProblemKind::InvalidDefinition => {
                    Some("Nothing was changed, and nothing was stored.")
                }
                ProblemKind::Unavailable => Some("Nothing was changed; try again in a moment."),
                _ => None,
            },
            _ => None,
        }
    }
}

const REVOKED: &str = "This identity was revoked. Get a new invite from another admin and use it with `mirrorctl login INVITE`.";
const EXPIRED: &str = "The certificate has ended, or one of the two clocks is wrong. Get a new invite from another admin and use it with `mirrorctl login INVITE`.";
const NOT_ACCEPTED: &str = "The coordinator does not take this certificate. Get a new invite from an admin and use it with `mirrorctl login INVITE`.";

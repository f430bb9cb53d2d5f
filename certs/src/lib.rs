//! Who is speaking: certificate authority, enrollment, identities, TLS and signing.
//!
//! Every connection of the network is mutual TLS under the network's own root, every statement is
//! signed with a registered key, and every way to get this wrong that we know of is shut in one
//! place: no other crate names rustls, rcgen, aws-lc-rs or an X.509 parser.
//!
//! * [`authority`] — the network's certificate authority, at the coordinator.
//! * [`enrollment`] — how a program with an invite becomes an identity.
//! * [`late`] — how a certificate that has ended is renewed.
//! * [`identity`] — what a certificate says, and the identity directory on disk.
//! * [`tls`] — servers, clients and raw streams; who is at the other end.
//! * [`live`] — HTTP clients and certificates that renew by themselves.
//! * [`guard`] — what certificates of consumers open, who are no identities of the network.
//! * [`signing`] — Ed25519 keys and signed envelopes.
//! * [`mac`] — message authentication for receivers outside of the network.
//! * [`private`] — objects of private trees, as anybody may read them.
//! * [`root`] — the root documents, followed from the pinned one.
//! * [`seal`] — files that only the holder of a secret can read.
//! * [`clock`] — the time, never earlier than what is known to have passed.
//! * [`revocation`] — serials that are no longer anyone's.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod authority;
pub mod clock;
pub mod csr;
pub mod dial;
pub mod enrollment;
pub mod guard;
pub mod identity;
pub mod keyfile;
pub mod late;
pub mod live;
pub mod mac;
pub mod private;
pub mod revocation;
pub mod root;
pub mod seal;
pub mod signing;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod tls;

pub use tls::install_provider;

/// SHA-256, where a format outside our hands wants it.
fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    digest
}

/// The system's random generator does not answer: nothing can be issued, proved or signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct NoRandomness;

fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

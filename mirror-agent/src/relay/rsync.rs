//! Direct rsync through a relay: the session is the publisher's, under this agent's certificate.
//!
//! *Why not a daemon of our own?* It could only serve published trees, where a site's own files lie
//! beside those of the tree, or a second tree of links of each generation; and a missing pack, which
//! is what rsync is for, is rare. So bytes are passed on, and the publisher still sees one client.
//!
//! Whoever connects names the module first, in a line of its own. It is looked up whether that
//! certificate may read that tree, the publisher is connected to, and what rsync's own greeting then
//! asks for has to be the same module: nobody borrows this agent's right to another tree.

use std::{sync::Arc, time::Duration};

use certs::{
    identity::PeerIdentity,
    tls::{PeerAddr, RawHandler, ServerStream},
};
use protocol::generation::TreeAt;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::Semaphore,
    time::timeout,
};

use super::{readers, through::order_of};
use crate::{agent::Agent, line::BudgetUsed, published};

/// Sessions at a time.
const SESSIONS: usize = 16;
/// Longest line that comes before rsync's own protocol, and how long it may take.
const MAX_LINE: usize = 1024;
const DEADLINE: Duration = Duration::from_secs(30);
/// Longest session: a publisher ends its own earlier.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("there are as many rsync sessions as this relay passes on")]
    Busy,
    #[error("{0}")]
    Refused(String),
    #[error("the publisher cannot be reached from this relay")]
    Unreachable(#[source] std::io::Error),
    #[error("it asks for another module than it named")]
    OtherModule,
    #[error("the connection failed")]
    Connection(#[from] std::io::Error),
    #[error(transparent)]
    Budget(#[from] BudgetUsed),
    #[error("the session took longer than a day")]
    TooLong,
}

/// What passes rsync sessions on.
pub(super) fn handler(agent: Arc<Agent>) -> RawHandler {
    let places = Arc::new(Semaphore::new(SESSIONS));
    Arc::new(move |stream, peer, address| {
        let (agent, places) = (Arc::clone(&agent), Arc::clone(&places));
        Box::pin(async move {
            let PeerAddr(from) = address;
            match timeout(LONGEST, session(&agent, &places, stream, &peer)).await {
                Ok(Ok(received)) => {
                    tracing::info!(%peer, %from, received, "passed an rsync session on");
                }
                Ok(Err(error)) => {
                    let error = crate::chain(&error);
                    tracing::warn!(%peer, %from, error, "rsync session refused or broken");
                }
                Err(_) => {
                    let error = Error::TooLong;
                    tracing::warn!(%peer, %from, %error, "rsync session ended");
                }
            }
        })
    })
}

/// Passes one session on; gives the bytes that came from the publisher.
async fn session(
    agent: &Agent,
    places: &Semaphore,
    mut stream: ServerStream,
    peer: &PeerIdentity,
) -> Result<u64, Error> {
    let (upstream, module, _place) = match prepare(agent, places, &mut stream, peer).await {
        Ok(prepared) => prepared,
        Err(error) => {
            // In rsync's own words, so that the other end says it to its admin.
            drop(stream.write_all(format!("@ERROR: {error}\n").as_bytes()).await);
            drop(stream.shutdown().await);
            return Err(error);
        }
    };
    let (mut from_peer, mut to_peer) = tokio::io::split(stream);
    let (mut from_publisher, mut to_publisher) = tokio::io::split(upstream);
    let asking = async {
        pass_greeting(&mut from_peer, &mut to_publisher, &module).await?;
        tokio::io::copy(&mut from_peer, &mut to_publisher).await?;
        drop(to_publisher.shutdown().await);
        Ok::<(), Error>(())
    };
    let answering = async {
        let (mut buffer, mut received) = (vec![0; 64 * 1024], 0);
        loop {
            let read = from_publisher.read(&mut buffer).await?;
            if read == 0 {
                drop(to_peer.shutdown().await);
                return Ok::<u64, Error>(received);
            }
            to_peer.write_all(&buffer[..read]).await?;
            to_peer.flush().await?;
            received += read as u64;
            // It came over this site's line, too.
            agent.line.took(read).await?;
        }
    };
    tokio::pin!(asking, answering);
    tokio::select! {
        received = &mut answering => received,
        asked = &mut asking => {
            asked?;
            answering.await
        }
    }
}

async fn prepare<'a>(
    agent: &Agent,
    places: &'a Semaphore,
    stream: &mut ServerStream,
    peer: &PeerIdentity,
) -> Result<(certs::tls::ClientStream, String, tokio::sync::SemaphorePermit<'a>), Error> {
    let place = places.try_acquire().map_err(|_| Error::Busy)?;
    let refused = |text: &str| Error::Refused(text.to_owned());
    let line = timeout(DEADLINE, read_line(stream)).await.map_err(|_| Error::TooLong)??;
    let text = std::str::from_utf8(&line).map_err(|_| refused("this is no module"))?;
    let module: TreeAt = text.trim_end().parse().map_err(|_| refused("this is no module"))?;
    let allowed = readers::check(agent, peer, &module.tree).await;
    allowed.map_err(|problem| Error::Refused(problem.to_string()))?;
    agent.line.check()?;
    let (_, from) = order_of(agent, &module.tree).ok_or_else(|| refused("no such tree here"))?;
    let module = module.to_string();
    let servers = published::servers(agent, &from, &module)
        .ok_or_else(|| refused("the publisher has not said yet where it can be reached"))?;
    let mut last = std::io::Error::from(std::io::ErrorKind::NotConnected);
    for server in servers {
        match server.connect(&agent.dialer, &agent.identity).await {
            Ok(upstream) => return Ok((upstream, module, place)),
            Err(error) => last = error,
        }
    }
    Err(Error::Unreachable(last))
}

/// Passes on the two lines with which rsync begins, if the second is the module that was named.
async fn pass_greeting(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    module: &str,
) -> Result<(), Error> {
    let greeting = read_line(from).await?;
    to.write_all(&greeting).await?;
    to.flush().await?;
    let asked = read_line(from).await?;
    if asked != format!("{module}\n").as_bytes() {
        return Err(Error::OtherModule);
    }
    to.write_all(&asked).await?;
    to.flush().await?;
    Ok(())
}

/// Reads up to the end of a line and not a byte further.
async fn read_line(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        if line.len() >= MAX_LINE {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "a line without end"));
        }
        line.push(from.read_u8().await?);
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pass(said: &[u8]) -> (Result<(), Error>, Vec<u8>) {
        let (mut from, mut to) = (said, Vec::new());
        let passed = pass_greeting(&mut from, &mut to, "tree@3").await;
        (passed, to)
    }

    #[tokio::test]
    async fn the_module_that_rsync_asks_for_has_to_be_the_one_that_was_named() {
        let (passed, to) = pass(b"@RSYNCD: 32.0 sha512\ntree@3\nrest").await;
        passed.unwrap();
        assert_eq!(to, b"@RSYNCD: 32.0 sha512\ntree@3\n");
        for other in ["tree@4", "other@3", "#list", "", "tree@3 ", "tree@3\0"] {
            let (passed, to) = pass(format!("@RSYNCD: 32.0\n{other}\n").as_bytes()).await;
            assert!(matches!(passed, Err(Error::OtherModule)), "{other}");
            assert_eq!(to, b"@RSYNCD: 32.0\n", "{other}");
        }
        let (endless, _) = pass(&[b'x'; 5_000]).await;
        assert!(matches!(endless, Err(Error::Connection(_))));
    }
}

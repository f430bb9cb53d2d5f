//! Connections to upstreams that allow only so many.
//!
//! A stock rsync daemon with `max connections` turns away whoever comes too late, and its admin
//! sees a crowd. So an agent connects only under a lease, of which there are never more than the
//! upstream's `max-connections`, counted over all sites and replicas. A lease lives briefly and is
//! prolonged while the run goes on: what an agent that died held is free again soon after.

use jiff::SignedDuration;
use protocol::{
    spec::UpstreamKind,
    units::Span,
    v1::agent::{LeaseAnswer, LeaseRequest},
};

use super::{App, Error, Refusal, admission::Caller, effective};

/// How long a lease counts without being prolonged.
const LIFE: Span = Span::from_secs(60);
/// How much longer its place is kept: the agent counts from when it asked, we from when we heard.
const GRACE: SignedDuration = SignedDuration::from_secs(30);
/// When to ask again.
const AGAIN: Span = Span::from_secs(2);

impl App {
    /// Grants, prolongs or takes back a lease.
    pub async fn lease(
        &self,
        caller: &Caller,
        request: &LeaseRequest,
    ) -> Result<LeaseAnswer, Error> {
        let name = &request.assignment;
        let mut write = self.write().await?;
        if request.release {
            write.tx.end_lease(request.id, &caller.name).await?;
            self.commit_quietly(write).await?;
            return Ok(LeaseAnswer { granted: false, span: AGAIN });
        }
        let holds = write
            .before
            .effective(name, write.now)
            .is_some_and(|it| it.order.stopped.is_none() && it.agent.as_ref() == Ok(&caller.name));
        if !holds {
            let message = format!("{caller} does not hold the assignment {name}");
            return Err(Refusal::Forbidden(message).into());
        }
        let definitions = &write.before.wanted.definitions;
        let tree = effective::tree(definitions, &name.tree);
        let upstream = tree.and_then(|tree| definitions.upstreams.get(&tree.upstream));
        let limited = upstream.filter(|upstream| upstream.kind == UpstreamKind::Rsyncd);
        let limited = limited.and_then(|it| Some((it.name.clone(), it.max_connections?)));
        // The limit may have been taken away since the agent got its orders.
        let Some((upstream, most)) = limited else {
            return Ok(LeaseAnswer { granted: true, span: LIFE });
        };
        let life = SignedDuration::try_from(LIFE.duration()).unwrap_or(GRACE);
        let until = write.now.saturating_add(life + GRACE).unwrap_or(write.now);
        let now = write.now;
        let granted =
            write.tx.take_lease(request.id, (&upstream, most), &caller.name, now, until).await?;
        self.commit_quietly(write).await?;
        Ok(LeaseAnswer { granted, span: if granted { LIFE } else { AGAIN } })
    }
}

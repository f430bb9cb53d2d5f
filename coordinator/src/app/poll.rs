//! Long polls: an answer as soon as the asker's own orders are newer than what it knows.

use std::{sync::Arc, time::Duration};

use protocol::{
    generation::Revision,
    name::IdentityName,
    v1::{agent::AgentOrders, publisher::PublisherOrders},
};

use super::{App, Error, Picture, Refusal, admission::Caller, orders};

impl App {
    /// An agent's orders once they are newer than `after`; `None` when `wait` ended without.
    pub async fn agent_orders(
        &self,
        caller: &Caller,
        after: Revision,
        wait: Duration,
    ) -> Result<Option<AgentOrders>, Error> {
        let Some(site) = &caller.site else {
            return Err(Refusal::Forbidden(format!("{caller} belongs to no site")).into());
        };
        let changed = |picture: &Picture, name: &IdentityName| picture.agent_revision(name);
        let Some(picture) = self.newer(caller, after, wait, changed).await? else {
            return Ok(None);
        };
        let (network, key) = (self.network(), (&self.parts.head_key, self.parts.head_life));
        let orders = orders::agent(&picture, network, &caller.name, site, key, self.now())?;
        Ok(Some(orders))
    }

    /// A publisher's orders once they are newer than `after`; `None` when `wait` ended without.
    pub async fn publisher_orders(
        &self,
        caller: &Caller,
        after: Revision,
        wait: Duration,
    ) -> Result<Option<PublisherOrders>, Error> {
        let changed = |picture: &Picture, name: &IdentityName| picture.publisher_revision(name);
        let found = self.newer(caller, after, wait, changed).await?;
        Ok(found.map(|picture| orders::publisher(&picture, &caller.name, self.now())))
    }

    /// The first picture in which what concerns the caller is newer than `after`.
    ///
    /// A caller that knows more than the database does is answered at once: it has to learn of the
    /// restore. One that knows more than this replica does makes it look first.
    async fn newer(
        &self,
        caller: &Caller,
        after: Revision,
        wait: Duration,
        changed: impl Fn(&Picture, &IdentityName) -> Revision,
    ) -> Result<Option<Arc<Picture>>, Error> {
        let mut pictures = self.pictures();
        if after > pictures.borrow().revision {
            self.refresh().await?;
        }
        let search = async {
            loop {
                let picture = Arc::clone(&pictures.borrow_and_update());
                let is_new = after == Revision(0)
                    || changed(&picture, &caller.name) > after
                    || after > picture.revision;
                if is_new || pictures.changed().await.is_err() {
                    return picture;
                }
            }
        };
        tokio::select! {
            // What is there already is the answer, also to one who does not wait at all.
            biased;
            picture = search => Ok(Some(picture)),
            () = tokio::time::sleep(wait) => Ok(None),
            () = self.stopping().cancelled() => Ok(None),
        }
    }
}

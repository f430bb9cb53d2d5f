//! Every request is looked up: TLS has proved the key, not that its certificate is still live.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Request, State},
    http::request::Parts,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use certs::identity::PeerIdentity;
use protocol::{error::ProblemKind, role::Role};

use super::{Api, error::Error};
use crate::app::{
    Refusal,
    admission::{Caller, Scope, admit},
};

/// Lets live certificates pass, each with its [`Caller`].
pub(super) async fn authenticate(
    State(api): State<Arc<Api>>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Arc<PeerIdentity>>().cloned();
    match caller(&api, peer.as_deref()).await {
        Ok(caller) => {
            api.app.note_seen(caller.role, &caller.name);
            if let Err(error) = api.app.confirm(&caller).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "not noted as used");
            }
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => {
            if let Some(peer) = peer.as_deref()
                && let Err(error) = api.app.note_outlived(peer).await
            {
                tracing::warn!(error = &error as &dyn std::error::Error, "a clone is not noted");
            }
            error.into_response()
        }
    }
}

async fn caller(api: &Api, peer: Option<&PeerIdentity>) -> Result<Caller, Error> {
    let peer = peer.ok_or_else(|| ProblemKind::Unauthenticated.with("show a certificate"))?;
    if !api.app.is_fresh() && api.app.refresh().await.is_err() {
        return Err(ProblemKind::Unavailable
            .with("the coordinator's database does not answer, so nobody's standing is known")
            .into());
    }
    match admit(&api.app.picture(), peer, api.app.now()) {
        // It may have been certified at another replica a moment ago.
        Err(Refusal::Unauthenticated(_)) if api.app.has_replicas() => {
            let picture = api.app.refresh().await?;
            Ok(admit(&picture, peer, api.app.now())?)
        }
        admitted => Ok(admitted?),
    }
}

/// Any live identity.
pub(super) struct Anyone(pub Caller);

macro_rules! roles {
    ($($(#[$doc:meta])* $name:ident $text:literal $role:ident;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name(pub Caller);

        impl FromRequestParts<Arc<Api>> for $name {
            type Rejection = Error;

            async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Error> {
                let Anyone(caller) = Anyone::from_request_parts(parts, api).await?;
                if caller.role == Role::$role {
                    return Ok(Self(caller));
                }
                let message = format!(concat!("{} may not do that; it is for ", $text), caller);
                Err(ProblemKind::Forbidden.with(message).into())
            }
        }
    )*};
}

roles! {
    /// An agent.
    Agent "agents" Agent;
    /// A publisher.
    Publisher "publishers" Publisher;
    /// An admin.
    Admin "admins" Admin;
}

/// Whoever may look at something of the network, with how much of it: an admin or a viewer at
/// everything, an operator at its site. What is asked has to be held to that.
pub(super) struct ScopedReader(pub Scope);

impl FromRequestParts<Arc<Api>> for ScopedReader {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Error> {
        let Anyone(caller) = Anyone::from_request_parts(parts, api).await?;
        if matches!(caller.role, Role::Admin | Role::Viewer | Role::Operator) {
            return Ok(Self(caller.scope()));
        }
        let message = format!("{caller} may not see that; it is for admins, viewers and operators");
        Err(ProblemKind::Forbidden.with(message).into())
    }
}

/// Whoever may do something about sites: an admin, or an operator at its own. What is done has to be
/// held to the caller's scope.
pub(super) struct SiteManager(pub Caller);

impl FromRequestParts<Arc<Api>> for SiteManager {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Error> {
        let Anyone(caller) = Anyone::from_request_parts(parts, api).await?;
        if matches!(caller.role, Role::Admin | Role::Operator) {
            return Ok(Self(caller));
        }
        let message = format!("{caller} may not do that; it is for admins and operators");
        Err(ProblemKind::Forbidden.with(message).into())
    }
}

/// An admin or a viewer: whoever may look at everything.
pub(super) struct Reader;

impl FromRequestParts<Arc<Api>> for Reader {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Error> {
        let Anyone(caller) = Anyone::from_request_parts(parts, api).await?;
        if matches!(caller.role, Role::Admin | Role::Viewer) {
            return Ok(Self);
        }
        let message = format!("{caller} may not see that; it is for admins and viewers");
        Err(ProblemKind::Forbidden.with(message).into())
    }
}

impl FromRequestParts<Arc<Api>> for Anyone {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Error> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller
            .map(Self)
            .ok_or_else(|| ProblemKind::Unauthenticated.with("show a certificate").into())
    }
}

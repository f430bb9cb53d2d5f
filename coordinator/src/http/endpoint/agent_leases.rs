//! `POST /v1/agent/leases` ← `LeaseRequest` → `LeaseAnswer`; role agent, for assignments of its site.
//! The same id again prolongs the lease; `release` gives it back.

use axum::{Json as Answer, extract::State};
use protocol::v1::agent::{LeaseAnswer, LeaseRequest};

use crate::http::{Rules, auth::Agent, error::Error, extract::Json};

pub(in crate::http) async fn post(
    State(api): Rules,
    Agent(caller): Agent,
    Json(request): Json<LeaseRequest>,
) -> Result<Answer<LeaseAnswer>, Error> {
    Ok(Answer(api.app.lease(&caller, &request).await?))
}

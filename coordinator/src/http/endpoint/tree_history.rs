//! `GET /v1/trees/{tree}/statements/{from}` → `Page<Envelope>`: the statements that lead from the
//! manifest `from` to the current generation, the newest first; role agent, for the trees it holds.

use axum::{Json, extract::State};
use protocol::{digest::Digest, dsse::Envelope, name::TreeName, v1::Page};

use crate::http::{Rules, auth::Agent, error::Error, extract::Path};

pub(in crate::http) async fn get(
    State(api): Rules,
    Agent(caller): Agent,
    Path((tree, from)): Path<(TreeName, Digest)>,
) -> Result<Json<Page<Envelope>>, Error> {
    let items = api.app.statements(&caller, &tree, &from).await?;
    Ok(Json(Page { next: None, items }))
}

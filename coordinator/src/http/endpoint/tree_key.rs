//! `GET /v1/trees/{tree}/key?epoch=N&generation=N` → `TreeKey`: the key of a private tree, of the
//! current generation where none is named; role agent, for trees it holds and may read, up to the
//! current generation; role publisher of that tree.

use axum::{Json, extract::State, http::header, response::IntoResponse};
use protocol::{
    error::ProblemKind,
    generation::{Epoch, Generation, Version},
    name::TreeName,
};
use serde::Deserialize;

use crate::http::{
    Rules,
    auth::Anyone,
    error::Error,
    extract::{Path, Query},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Wanted {
    epoch: Option<Epoch>,
    generation: Option<Generation>,
}

pub(in crate::http) async fn get(
    State(api): Rules,
    Anyone(caller): Anyone,
    Path(tree): Path<TreeName>,
    Query(wanted): Query<Wanted>,
) -> Result<impl IntoResponse, Error> {
    let version = match (wanted.epoch, wanted.generation) {
        (Some(epoch), Some(generation)) => Some(Version { epoch, generation }),
        (None, None) => None,
        _ => {
            let text = "epoch and generation name a generation together; give both, or none";
            return Err(ProblemKind::BadRequest.with(text).into());
        }
    };
    let key = api.app.tree_key(&caller, &tree, version).await?;
    // Nothing on the way may keep it.
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(key)))
}

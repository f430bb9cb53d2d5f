//! `POST /v1/trees/{tree}/offers` ← `Envelope` of a `Offer` → `Accepted`; role publisher, for its
//! own trees, signed with its registered key. The same offer again
//! changes nothing.

use axum::extract::State;
use protocol::{dsse::Envelope, name::TreeName, v1::publisher::Accepted};

use crate::http::{
    Rules,
    auth::Publisher,
    error::Error,
    extract::{Json, Path},
};

pub(in crate::http) async fn post(
    State(api): Rules,
    Publisher(caller): Publisher,
    Path(tree): Path<TreeName>,
    Json(envelope): Json<Envelope, { 64 << 10 }>,
) -> Result<axum::Json<Accepted>, Error> {
    Ok(axum::Json(api.app.announce_offer(&caller, &tree, &envelope).await?))
}

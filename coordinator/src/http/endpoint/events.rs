//! `GET /v1/events?after=&limit=&wait=` → `Page<Event>`, those after number `after`, the oldest
//! first; roles admin and viewer. With `wait` an empty page comes only after that time. Without
//! `after` the newest `limit` are told.

use std::time::Duration;

use axum::{Json, extract::State};
use protocol::{
    units::Span,
    v1::{MAX_WAIT_SECONDS, Page, events::Event},
};
use serde::Deserialize;

use crate::http::{
    Rules,
    auth::Reader,
    error::Error,
    extract::{Query, Window},
};

/// How often one looks for what another replica stored.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Wanted {
    after: Option<u64>,
    limit: Option<u64>,
    wait: Option<Span>,
}

pub(in crate::http) async fn get(
    State(api): Rules,
    _: Reader,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<Event>>, Error> {
    let limit = Window::new(None, wanted.limit)?.limit;
    let after = match wanted.after {
        Some(after) => after,
        None => api.app.newest_event().await?.saturating_sub(limit),
    };
    let wait = wanted.wait.map_or(Duration::ZERO, Span::duration);
    let wait = wait.min(Duration::from_secs(MAX_WAIT_SECONDS));
    let until = tokio::time::Instant::now() + wait;
    loop {
        let items = api.app.events(after, limit).await?;
        let now = tokio::time::Instant::now();
        if !items.is_empty() || now >= until {
            return Ok(Json(Page { items, next: None }));
        }
        tokio::select! {
            () = api.app.stopping().cancelled() => return Ok(Json(Page { items, next: None })),
            () = api.app.something_told() => {}
            () = tokio::time::sleep_until(until.min(now + LOOK)) => {}
        }
    }
}

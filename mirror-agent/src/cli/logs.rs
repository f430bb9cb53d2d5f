//! `log`: of a running agent by its socket, and without one from the data directory. A run that was
//! started by the clock holds the lock and has no socket, so the lock is not asked for.

use protocol::spec::AssignmentName;

use super::{args::Settings, commands::load, print};
use crate::{
    agent::{Forced, NoSuchTree, only},
    control::{self, Heard, Request},
    run_log::{Kept, Shelf},
    status::{LogText, texts},
};

/// Prints one log of a tree's assignments, or of all.
pub(super) async fn show(
    settings: &Settings,
    tree: Option<String>,
    kept: Kept,
) -> anyhow::Result<()> {
    let Some(config) = load(settings)? else { return Ok(()) };
    let request = Request::Text { tree: tree.clone(), kept };
    let logs = match control::ask(&config.data, &request, |_| {}).await? {
        Some(value) => serde_json::from_value::<Vec<LogText>>(value)?,
        None => {
            let shelf = Shelf::of(&config.data);
            texts(&shelf, &names(&shelf, tree.as_deref())?, kept)
        }
    };
    print::logs(&logs);
    Ok(())
}

/// Prints the latest log of a tree's only assignment as it grows: with a running agent until
/// interrupted, else until the end of the run.
pub(super) async fn follow(settings: &Settings, tree: String) -> anyhow::Result<()> {
    let Some(config) = load(settings)? else { return Ok(()) };
    let request = Request::Follow { tree: tree.clone() };
    let heard = |heard: Heard<'_>| {
        if let Heard::Text(text) = heard {
            // Who reads no more has closed the pipe, and ends this program with it.
            print::raw(text.as_bytes()).ok();
        }
    };
    if control::ask(&config.data, &request, heard).await?.is_none() {
        let shelf = Shelf::of(&config.data);
        let name = only(names(&shelf, Some(&tree))?, &tree)?;
        let mut follower = shelf.follow(&name);
        while let Some(text) = follower.next_of_run().await {
            print::raw(text.as_bytes())?;
        }
    }
    Ok(())
}

/// Assignments of a tree, or all, that have logs.
fn names(shelf: &Shelf, tree: Option<&str>) -> Result<Vec<AssignmentName>, NoSuchTree> {
    let Some(tree) = tree else { return Ok(shelf.names()) };
    let wanted = Forced::Tree(tree.to_owned());
    let names: Vec<_> = shelf.names().into_iter().filter(|name| wanted.includes(name)).collect();
    if names.is_empty() { Err(NoSuchTree { tree: tree.to_owned() }) } else { Ok(names) }
}

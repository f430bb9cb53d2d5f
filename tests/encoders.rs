//! Every tree with the same choice of encoders, for a pass over the scenarios with packs of one kind.
//!
//! A tree may force librsync deltas (`encoders = "rsync"`), and then nothing else about it may
//! change: whatever a scenario proves has to hold for those packs too. So the scenarios are not
//! written twice; they run a second time with [`VARIABLE`] set.

use toml::{Table, Value};

/// Names the choice that every published tree gets which makes none itself, such as `rsync`.
pub const VARIABLE: &str = "MIRRORNET_ENCODERS";

/// The choice that is forced in this pass, if one is.
pub fn forced() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|choice| !choice.is_empty())
}

/// # Panics
/// Where librsync deltas are forced, and other deltas were in what a run brought.
pub(crate) fn assert_forced(run: &serde_json::Value) {
    if forced().is_none_or(|choice| choice != "rsync") {
        return;
    }
    let used = run["encoders"].as_array().into_iter().flatten();
    let may = ["rsync", "whole", "copy"];
    let other = used.filter(|used| !may.iter().any(|encoder| used["encoder"] == *encoder));
    assert_eq!(other.count(), 0, "{run:#}");
}

/// Definitions in which each tree has `choice`, but for those that choose for themselves and those
/// of stock daemons, which make no packs.
pub(crate) fn force(definitions: &str, choice: &str) -> String {
    let Ok(table) = definitions.parse::<Table>() else { return definitions.to_owned() };
    let mut trees = list(&table, "tree").map(|tree| {
        let chooses = tree.contains_key("encoders");
        !chooses && !is_stock(&table, tree)
    });
    let mut text = String::with_capacity(definitions.len() + 64);
    for line in definitions.lines() {
        text.extend([line, "\n"]);
        if line.trim() == "[[tree]]" && trees.next() == Some(true) {
            text.push_str(&format!("encoders = {choice:?}\n"));
        }
    }
    text
}

/// Whether these definitions say that a tree comes from a stock daemon.
fn is_stock(definitions: &Table, tree: &Table) -> bool {
    let named = |kind, name: Option<&Value>| {
        list(definitions, kind).find(|one| name.is_some() && one.get("name") == name)
    };
    let source = named("source", tree.get("source"));
    let upstream = source.and_then(|source| named("upstream", source.get("upstream")));
    upstream.and_then(|upstream| upstream.get("kind")?.as_str()) == Some("rsyncd")
}

fn list<'a>(definitions: &'a Table, kind: &str) -> impl Iterator<Item = &'a Table> {
    let list = definitions.get(kind).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_table)
}

#[cfg(test)]
mod tests {
    use super::force;

    #[test]
    fn a_choice_is_forced_on_trees_with_packs_that_make_none() {
        let upstreams = "\
            [[upstream]]\nname = \"build\"\nkind = \"publisher\"\n\
            [[upstream]]\nname = \"stock\"\nkind = \"rsyncd\"\n\
            [[source]]\nname = \"ours\"\nupstream = \"build\"\n\
            [[source]]\nname = \"theirs\"\nupstream = \"stock\"\n";
        let [chosen, plain, stock, partial] = [
            "name = \"chosen\"\nsource = \"ours\"\nencoders = \"patch\"\n",
            "name = \"plain\"\nsource = \"ours\"\n[tree.guard]\nmax-delete-files = 3\n",
            "name = \"stock\"\nsource = \"theirs\"\n",
            "name = \"partial\"\nsource = \"defined elsewhere\"\n",
        ];
        let trees = |line: &str| {
            format!(
                "{upstreams}[[tree]]\n{chosen}[[tree]]\n{line}{plain}[[tree]]\n{stock}\
                 [[tree]]\n{line}{partial}"
            )
        };
        assert_eq!(force(&trees(""), "rsync"), trees("encoders = \"rsync\"\n"));
    }
}

//! `get`: lists things of one kind, or shows one as it is defined.

use std::collections::BTreeMap;

use anyhow::Context as _;
use clap::Args;
use protocol::{
    client::Client,
    generation::TreeAt,
    name::TreeName,
    role::Role,
    statement::PackFigures,
    v1::{
        definitions::{Definition, Kind},
        history::GenerationStatus,
        identities::IdentityStatus,
    },
};
use serde_json::Value;

use super::{
    error::Error,
    history,
    kind::{HELP, Subject},
    print::{Print, table},
    select::Selectors,
    session::Session,
    text::{self, NOTHING, or_nothing},
};

/// List things of one kind, or show one of them.
///
/// A definition is shown as it could stand in a definition file. Assignments and grants may be chosen by
/// selectors.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl get trees\n  mirrorctl get tree fedora\n  mirrorctl get assignments --site lisbon --source linux\n  mirrorctl get generations fedora\n  mirrorctl get run 0198f0c2-…"
)]
pub(super) struct Get {
    #[arg(help = HELP)]
    kind: Subject,
    /// Only this one. For generations TREE or TREE@N, for runs their id or TREE@SITE.
    name: Option<String>,
    #[command(flatten)]
    selectors: Selectors,
}

impl Get {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let chosen = self.selectors.choose(self.kind, self.name.as_deref())?;
        let api = session.api(print).await?;
        match (self.kind, self.name) {
            (Subject::Definition(kind), None) => {
                let mut list = api.definitions(kind).await?;
                if chosen {
                    let origins = self.selectors.origins(&api).await?;
                    list.retain(|definition| {
                        let name = definition.name.parse();
                        name.is_ok_and(|name| self.selectors.means(&name, &origins))
                    });
                }
                print.result(&list, |list| definitions(kind, list))
            }
            (Subject::Definition(kind), Some(name)) => {
                let definition = api.definition(kind, &name).await?;
                let toml = as_file(&definition)?;
                print.result(&definition, |_| toml)
            }
            (Subject::Identity(role), None) => {
                let list = api.identities(Some(role)).await?;
                print.result(&list, |list| identities(list))
            }
            (Subject::Identity(role), Some(name)) => {
                let found = identity(&api, role, &name).await?;
                print.result(&found, |found| identities(std::slice::from_ref(found)))
            }
            (Subject::Generation, name) => {
                let list = generations_of(&api, name.as_deref()).await?;
                print.result(&list, |list| generations(list))
            }
            (Subject::Run, None) => {
                let runs = api.runs("").await?.items;
                print.result(&runs, |runs| history::shown(runs))
            }
            (Subject::Run, Some(name)) => history::one_or_some(&api, &name, print).await,
        }
    }
}

/// The identity of that role and name, with the names there are if there is none.
pub(super) async fn identity(
    api: &Client,
    role: Role,
    name: &str,
) -> Result<IdentityStatus, Error> {
    let list = api.identities(Some(role)).await?;
    let found = list.iter().find(|identity| identity.name.as_str() == name).cloned();
    found.ok_or_else(|| {
        let names: Vec<_> = list.iter().map(|identity| identity.name.as_str()).collect();
        Error::Other(anyhow::anyhow!("there is no {role} {name}; there are: {}", names.join(", ")))
    })
}

/// All generations, those of a tree, or the one of `TREE@N`.
pub(super) async fn generations_of(
    api: &Client,
    name: Option<&str>,
) -> Result<Vec<GenerationStatus>, Error> {
    let Some(name) = name else { return Ok(api.generations(None).await?.items) };
    if !name.contains('@') {
        let tree: TreeName = name.parse().map_err(|error| Error::Usage(format!("{error}")))?;
        return Ok(api.generations(Some(&tree)).await?.items);
    }
    let at: TreeAt = name.parse().map_err(|error| Error::Usage(format!("{error}")))?;
    let mut list = api.generations(Some(&at.tree)).await?.items;
    list.retain(|generation| {
        generation.version.is_some_and(|version| version.generation == at.generation)
    });
    if list.is_empty() {
        return Err(Error::Other(anyhow::anyhow!(
            "{at} is not among the latest generations of tree {}",
            at.tree
        )));
    }
    Ok(list)
}

/// One definition as it could stand in a definition file.
pub(super) fn as_file(definition: &Definition) -> Result<String, Error> {
    let file = BTreeMap::from([(definition.kind.as_str(), [&definition.spec])]);
    Ok(toml::to_string(&file).context("the definition cannot be written as TOML")?)
}

fn definitions(kind: Kind, list: &[Definition]) -> String {
    let columns: &[(&str, &str)] = match kind {
        Kind::Network => &[("GUARD", "guard"), ("", ""), ("", "")],
        Kind::Upstream => &[("KIND", "kind"), ("URL", "url"), ("PUBLISHER", "publisher")],
        Kind::Source => &[("UPSTREAM", "upstream"), ("PATH", "path"), ("", "")],
        Kind::Tree => &[("SOURCE", "source"), ("PATH", "path"), ("LAYOUT", "layout")],
        Kind::Site => &[("PREFIX", "prefix"), ("TIMEZONE", "timezone"), ("", "")],
        Kind::Grant => &[("UNTIL", "until"), ("", ""), ("", "")],
        Kind::Assignment => &[("PATH", "path"), ("AGENT", "agent"), ("ENABLED", "enabled")],
    };
    let heading = |at: usize| columns[at].0;
    let rows = list.iter().map(|definition| {
        let cell = |at: usize| cell(&definition.spec, columns[at].1);
        [definition.name.clone(), cell(0), cell(1), cell(2), definition.revision.to_string()]
    });
    table(["NAME", heading(0), heading(1), heading(2), "REVISION"], rows)
}

fn cell(spec: &Value, key: &str) -> String {
    match (spec.get(key), key) {
        (_, "") => String::new(),
        (Some(Value::String(text)), _) => text.clone(),
        (Some(value), _) => value.to_string(),
        (None, "layout") => "simple".into(),
        (None, _) => NOTHING.into(),
    }
}

/// Identities as a table.
pub(super) fn identities(list: &[IdentityStatus]) -> String {
    let rows = list.iter().map(|identity| {
        [
            identity.name.to_string(),
            or_nothing(identity.site.as_ref(), ToString::to_string),
            match (identity.revoked, identity.not_after) {
                (Some(time), _) => format!("revoked {}", text::time(time)),
                (None, Some(time)) => format!("until {}", text::time(time)),
                (None, None) => "not enrolled".into(),
            },
            or_nothing(identity.serial.clone(), |serial| serial),
            or_nothing(identity.last_seen, text::time),
        ]
    });
    table(["NAME", "SITE", "CERTIFICATE", "SERIAL", "LAST SEEN"], rows)
}

/// Generations and holds as a table.
pub(super) fn generations(list: &[GenerationStatus]) -> String {
    let rows = list.iter().map(|generation| {
        let number = match (generation.version, &generation.hold) {
            (Some(version), _) => text::version(version),
            (None, Some(hold)) => hold.id.to_string(),
            (None, None) => "held".into(),
        };
        let packs = generation.packs.iter().map(|pack| pack.length).sum();
        [
            generation.tree.to_string(),
            number,
            generation.entries.to_string(),
            text::bytes(generation.bytes),
            format!("{} ({})", generation.packs.len(), text::bytes(packs)),
            text::time(generation.created),
            short(&generation.manifest.to_string()),
            why_held(generation),
        ]
    });
    let headings =
        ["TREE", "GENERATION", "ENTRIES", "CONTENT", "PACKS", "SINCE", "MANIFEST", "HELD BECAUSE"];
    table(headings, rows)
}

/// The packs that lead to these generations: what they stand for, and what they took.
pub(super) fn packs(list: &[GenerationStatus]) -> String {
    let rows = list.iter().flat_map(|generation| {
        let number = or_nothing(generation.version, text::version);
        generation.packs.iter().map(move |pack| {
            let figure =
                |value: fn(&PackFigures) -> String| or_nothing(pack.figures.as_ref(), value);
            [
                number.clone(),
                pack.from.map_or("nothing".into(), |from| short(&from.to_string())),
                text::bytes(pack.length),
                figure(|figures| text::bytes(figures.content_bytes)),
                figure(|figures| text::bytes(figures.rsync_bytes)),
                or_nothing(pack.figures, |f| text::saved(pack.length, f.content_bytes)),
                figure(|figures| format!("{:.1} s", figures.cpu_milliseconds as f64 / 1000.0)),
            ]
        })
    });
    let headings = [
        "GENERATION",
        "PACK FROM",
        "LENGTH",
        "WHOLE FILES",
        "RSYNC (ESTIMATE)",
        "SAVED",
        "PUBLISHER'S CPU",
    ];
    table(headings, rows)
}

/// Why something is held, and what it would change.
fn why_held(generation: &GenerationStatus) -> String {
    let Some(reason) = &generation.held else { return String::new() };
    let Some(hold) = generation.hold.as_ref().filter(|hold| !hold.unseen) else {
        return reason.clone();
    };
    let (changes, by) = (&hold.difference, &hold.by);
    let mut text = format!(
        "{reason} [{by}: -{} files of {}, +{}, {} changed",
        hold.removed_files, changes.of_files, changes.added_files, changes.changed_files
    );
    if let Some(first) = changes.removed.first() {
        let more = if changes.removed.len() > 1 { ", …" } else { "" };
        text.push_str(&format!("; gone: {first}{more}"));
    }
    text.push(']');
    text
}

/// As much of a digest as tells it from others.
fn short(digest: &str) -> String {
    digest.chars().take(15).collect()
}

#[cfg(test)]
mod tests {
    use protocol::generation::Revision;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_definition_is_shown_as_it_could_stand_in_a_file() {
        let definition = Definition {
            kind: Kind::Tree,
            name: "fedora".into(),
            revision: Revision(3),
            spec: json!({
                "name": "fedora", "source": "releases", "filter": ["- *.iso"],
                "guard": { "max-delete-files": "5%" },
            }),
        };
        let text = as_file(&definition).unwrap();
        assert!(text.starts_with("[[tree]]\n"), "{text}");
        let read: toml::Table = text.parse().unwrap();
        assert_eq!(read["tree"][0]["guard"]["max-delete-files"].as_str(), Some("5%"));
        let listed = definitions(Kind::Tree, &[definition]);
        let lines: Vec<_> =
            listed.lines().map(|l| l.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines[0], ["NAME", "SOURCE", "PATH", "LAYOUT", "REVISION"]);
        assert_eq!(lines[1], ["fedora", "releases", "-", "simple", "3"]);
    }
}

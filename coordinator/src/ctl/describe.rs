//! `describe`: everything about one thing, gathered from everywhere.

use clap::Args;
use protocol::{
    client::Client,
    name::{SiteName, TreeName},
    role::Role,
    spec::AssignmentName,
    v1::{
        definitions::{Definition, Effective, Kind},
        history::{GenerationStatus, RunStatus},
        identities::IdentityStatus,
        status::AssignmentStatus,
    },
};
use serde::Serialize;

use super::{
    error::Error,
    get, history,
    kind::{HELP, Subject},
    print::{Print, table},
    select::Selectors,
    session::Session,
    status,
};

/// Show everything about one thing.
///
/// An assignment is shown with every setting and every rule that is in force, and for each the
/// definition that decided it; several may be chosen by selectors.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl describe assignment fedora@lisbon\n  mirrorctl describe assignments --site lisbon\n  mirrorctl describe generation fedora@12\n  mirrorctl describe tree fedora\n  mirrorctl describe site lisbon"
)]
pub(super) struct Describe {
    #[arg(help = HELP)]
    kind: Subject,
    /// Its name; TREE@SITE for grants and assignments, TREE@N for generations, the id for runs.
    #[arg(required_unless_present_any = ["tree", "site", "source", "upstream", "assignment"])]
    name: Option<String>,
    #[command(flatten)]
    selectors: Selectors,
}

impl Describe {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let chosen = self.selectors.choose(self.kind, self.name.as_deref())?;
        if chosen && self.kind != Subject::Definition(Kind::Assignment) {
            return Err(Error::Usage("selectors choose assignments here".into()));
        }
        let api = session.api(print).await?;
        if chosen {
            let mut all = Vec::new();
            for name in self.selectors.select(&api).await? {
                all.push(AboutAssignment::gather(&api, &name.to_string()).await?);
            }
            return print.result(&all, |all| {
                all.iter().map(AboutAssignment::shown).collect::<Vec<_>>().join("\n")
            });
        }
        let Some(name) = &self.name else {
            let kind = self.kind.as_str();
            return Err(Error::Usage(format!(
                "say which {kind}; `mirrorctl get {kind}` lists them"
            )));
        };
        match self.kind {
            Subject::Definition(Kind::Assignment) => {
                let about = AboutAssignment::gather(&api, name).await?;
                print.result(&about, AboutAssignment::shown)
            }
            Subject::Definition(kind @ (Kind::Tree | Kind::Site)) => {
                let about = About::gather(&api, kind, name).await?;
                let file = get::as_file(&about.definition)?;
                print.result(&about, |about| about.shown(&file))
            }
            Subject::Definition(kind) => {
                let definition = api.definition(kind, name).await?;
                let file = get::as_file(&definition)?;
                print.result(&definition, |definition| {
                    format!("{file}\nchanged last in revision {}", definition.revision)
                })
            }
            Subject::Identity(role) => {
                let identity = get::identity(&api, role, name).await?;
                print.result(&identity, |identity| {
                    let reason = match identity.reason.as_str() {
                        "" => String::new(),
                        reason => format!("\nrevoked because: {reason}"),
                    };
                    get::identities(std::slice::from_ref(identity)) + &reason
                })
            }
            Subject::Generation => {
                let list = get::generations_of(&api, Some(name)).await?;
                print.result(&list, |list| get::generations(list) + "\n" + &get::packs(list))
            }
            Subject::Run => history::one_or_some(&api, name, print).await,
        }
    }
}

/// An assignment: what is in force, and how it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct AboutAssignment {
    effective: Effective,
    status: Option<AssignmentStatus>,
    runs: Vec<RunStatus>,
}

impl AboutAssignment {
    async fn gather(api: &Client, name: &str) -> Result<Self, Error> {
        let name: AssignmentName =
            name.parse().map_err(|error| Error::Usage(format!("{error}")))?;
        let effective = api.effective(&name).await?;
        let status = api.status().await?.assignments.into_iter().find(|status| status.name == name);
        let mut runs = api.runs(&format!("assignment={name}")).await?.items;
        runs.truncate(RECENT);
        Ok(Self { effective, status, runs })
    }

    fn shown(&self) -> String {
        let settings = self.effective.settings.iter().map(|setting| {
            let value = match &setting.value {
                serde_json::Value::Null => "-".into(),
                serde_json::Value::String(text) => text.clone(),
                value => value.to_string(),
            };
            [setting.key.clone(), value, setting.from.clone()]
        });
        let settings = table(["SETTING", "VALUE", "FROM"], settings);
        let rules = self.effective.rules.iter().map(|rule| [rule.rule.clone(), rule.from.clone()]);
        let rules = match self.effective.rules.is_empty() {
            true => "no rules: everything is kept\n".to_owned(),
            false => table(["RULE (the first that matches decides)", "FROM"], rules),
        };
        let stopped = match &self.effective.stopped {
            Some(reason) => format!("not carried out: {reason}\n"),
            None => String::new(),
        };
        let status = self.status.as_ref().map(|one| status::shown_assignments([one]));
        let mut parts = vec![format!("assignment {}\n{stopped}", self.effective.name)];
        parts.extend(status);
        parts.extend([settings, rules]);
        parts.extend((!self.runs.is_empty()).then(|| history::shown(&self.runs)));
        parts.join("\n")
    }
}

/// A tree or a site: its definition, and what hangs on it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct About {
    definition: Definition,
    assignments: Vec<AssignmentStatus>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    generations: Vec<GenerationStatus>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    agents: Vec<IdentityStatus>,
}

/// So much history is shown.
const RECENT: usize = 5;

impl About {
    async fn gather(api: &Client, kind: Kind, name: &str) -> Result<Self, Error> {
        let definition = api.definition(kind, name).await?;
        let mut assignments = api.status().await?.assignments;
        let (mut generations, mut agents) = (Vec::new(), Vec::new());
        if kind == Kind::Tree {
            let tree: TreeName = name.parse().map_err(|error| Error::Usage(format!("{error}")))?;
            assignments.retain(|status| status.name.tree == tree);
            generations = api.generations(Some(&tree)).await?.items;
            generations.truncate(RECENT);
        } else {
            let site: SiteName = name.parse().map_err(|error| Error::Usage(format!("{error}")))?;
            assignments.retain(|status| status.name.site == site);
            agents = api.identities(Some(Role::Agent)).await?;
            agents.retain(|agent| agent.site.as_ref() == Some(&site));
        }
        Ok(Self { definition, assignments, generations, agents })
    }

    fn shown(&self, file: &str) -> String {
        let mut parts =
            vec![format!("{file}\nchanged last in revision {}\n", self.definition.revision)];
        if !self.agents.is_empty() {
            parts.push(get::identities(&self.agents));
        }
        if !self.generations.is_empty() {
            parts.push(get::generations(&self.generations));
        }
        parts.push(match self.assignments.is_empty() {
            true => "no assignments".to_owned(),
            false => status::shown_assignments(&self.assignments),
        });
        parts.join("\n")
    }
}

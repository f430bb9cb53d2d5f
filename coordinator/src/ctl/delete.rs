//! `delete`: removes definitions.

use clap::Args;
use protocol::{
    client::{self, Client},
    spec::AssignmentName,
    v1::definitions::Kind,
};

use super::{
    apply,
    error::Error,
    kind::{HELP, Subject},
    print::Print,
    select::Selectors,
    session::Session,
};

/// Remove definitions. Published files stay as they are, unless an assignment says otherwise.
///
/// What is named goes at once. Assignments and grants may be chosen by selectors, too: then they are
/// listed and agreed to first.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl delete assignment fedora@lisbon\n  mirrorctl delete tree fedora\n  mirrorctl delete assignments --site lisbon --source linux"
)]
pub(super) struct Delete {
    #[arg(help = HELP)]
    kind: Subject,
    /// Their names; TREE@SITE for grants and assignments.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    selectors: Selectors,
    /// Do not ask.
    #[arg(long, short, visible_alias = "yes", short_alias = 'y')]
    force: bool,
}

impl Delete {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let kind = self.definitions()?;
        let api = session.api(print).await?;
        let names = match self.selectors.is_empty() {
            true => self.names.clone(),
            false => self.selected(&api, kind).await?,
        };
        let what =
            if names.len() == 1 { kind.as_str().to_owned() } else { format!("{}s", kind.as_str()) };
        if names.is_empty() {
            return Err(Error::Other(anyhow::anyhow!("no {what} is selected")));
        }
        if !self.selectors.is_empty() && !self.force {
            names.iter().for_each(|name| print.note(name));
            if !print.ask(&format!("delete {} {what}?", names.len()))? {
                print.note("Answer with --force where nobody can be asked.");
                return Err(Error::Declined);
            }
        }
        let mut failed = 0;
        for name in &names {
            // What one of them lacks must not keep the others.
            match api.delete_definition(kind, name).await {
                Ok(result) => print.result(&result, apply::shown)?,
                Err(error) if names.len() == 1 => return Err(error.into()),
                Err(error @ client::Error::Transport { .. }) => return Err(error.into()),
                Err(error) => {
                    failed += 1;
                    print.note(&format!("{name}: {error}"));
                }
            }
        }
        match failed {
            0 => Ok(()),
            failed => {
                Err(Error::Incomplete(format!("delete failed for {failed} of {}", names.len())))
            }
        }
    }

    /// The kind of what is to go, if that can go and was named or selected as it has to be.
    fn definitions(&self) -> Result<Kind, Error> {
        let usage = |text: String| Err(Error::Usage(text));
        let kind = match self.kind {
            Subject::Definition(kind) => kind,
            Subject::Identity(role) => {
                let name = self.names.first().map_or("NAME", String::as_str);
                return usage(format!(
                    "an identity is shut out, not deleted: mirrorctl revoke {role}/{name}"
                ));
            }
            Subject::Generation | Subject::Run => {
                let kind = self.kind.as_str();
                return usage(format!("a {kind} is history and cannot be deleted"));
            }
        };
        match (self.selectors.is_empty(), self.names.is_empty()) {
            (true, true) => usage(format!(
                "say which {} goes: name it, or choose assignments and grants by selectors",
                kind.as_str()
            )),
            (false, _) if !matches!(kind, Kind::Assignment | Kind::Grant) => usage(format!(
                "selectors choose assignments and grants; name each {}",
                kind.as_str()
            )),
            (false, false) => usage("give names or selectors, not both".into()),
            _ => Ok(kind),
        }
    }

    /// The assignments or grants that the selectors mean, by name.
    async fn selected(&self, api: &Client, kind: Kind) -> Result<Vec<String>, Error> {
        if kind == Kind::Assignment {
            let selected = self.selectors.select(api).await?;
            return Ok(selected.iter().map(ToString::to_string).collect());
        }
        let origins = self.selectors.origins(api).await?;
        let defined = api.definitions(kind).await?.into_iter();
        let meant = defined.filter(|definition| {
            let name: Option<AssignmentName> = definition.name.parse().ok();
            name.is_some_and(|name| self.selectors.means(&name, &origins))
        });
        Ok(meant.map(|definition| definition.name).collect())
    }
}

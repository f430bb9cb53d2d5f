//! `filter test`: what rules do to paths that need not exist.

use std::path::PathBuf;

use clap::Args;
use protocol::{
    filter::{Filter, preview::Explanation},
    path::TreePath,
};
use serde::Serialize;

use super::{Error, Print, read_rules};

/// Say for each path whether rules keep it, and by which rule. The paths need not exist.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl filter test site.rules repodata/repomd.xml debug/ images/boot.iso"
)]
pub(in crate::ctl) struct Test {
    /// File of rules, one on each line, as after rsync's `--filter`.
    rules: PathBuf,
    /// Paths relative to the tree; directories with a `/` behind.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Answer {
    path: String,
    #[serde(flatten)]
    explanation: Explanation,
}

impl Test {
    pub(in crate::ctl) fn run(self, print: &mut Print) -> Result<(), Error> {
        let filter = read_rules(&self.rules)?;
        let answers: Vec<_> =
            self.paths.into_iter().map(|path| answer(&filter, path)).collect::<Result<_, _>>()?;
        print.result(&answers, |answers| {
            let line = |answer: &Answer| format!("{}: {}\n", answer.path, answer.explanation);
            answers.iter().map(line).collect()
        })
    }
}

/// Asks about every directory above the path first, as a walk does.
fn answer(filter: &Filter, text: String) -> Result<Answer, Error> {
    let usage = |error| Error::Usage(format!("{text:?}: {error}"));
    let (bare, is_dir) = match text.strip_suffix('/') {
        Some(bare) => (bare, true),
        None => (text.as_str(), false),
    };
    let path = TreePath::parse(bare.as_bytes()).map_err(usage)?;
    let left_out = path.ancestors().find(|dir| !filter.decide(dir, true).kept);
    let asked = left_out.as_ref().unwrap_or(&path);
    let decision = filter.decide(asked, is_dir || left_out.is_some());
    let (kept, rule) = (decision.kept, decision.rule.cloned());
    Ok(Answer { path: text, explanation: Explanation { kept, rule, through: left_out } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_kept_only_with_all_directories_above_it() {
        let filter = Filter::parse(&["+ /a/keep", "- /a/b/", "- *.iso"]).unwrap();
        let said = |path: &str| answer(&filter, path.into()).unwrap().explanation.to_string();
        assert_eq!(
            said("a/b/c/d"),
            "left out with the directory a/b/ by given rules, rule 2: - /a/b/"
        );
        assert_eq!(said("a/b/"), "left out by given rules, rule 2: - /a/b/");
        assert_eq!(said("a/b"), "kept, since no rule speaks of it");
        assert_eq!(said("a/keep"), "kept by given rules, rule 1: + /a/keep");
        assert!(answer(&filter, "../x".into()).unwrap_err().is_usage());
    }
}

//! A cage as the arguments of a program, so that a process can be told its own.

use std::{ffi::OsString, path::PathBuf};

use super::{Bounds, Cage, Confine};

/// Arguments that [`Cage::arguments`] did not write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("only the daemon calls this: {0:?} is not understood")]
pub struct InvalidArguments(OsString);

impl Cage {
    /// What a process has to be told to become `program` in this cage.
    pub fn arguments(&self, program: &std::path::Path) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["confine".into(), name(self.confine).into()];
        let groups = [("read", &self.read), ("write", &self.write), ("program", &self.programs)];
        for (word, paths) in groups {
            words.extend(paths.iter().flat_map(|path| [word.into(), path.into()]));
        }
        let Bounds { memory_bytes, file_bytes, cpu_seconds, open_files } = self.bounds;
        let limits = [
            ("memory", memory_bytes),
            ("file", file_bytes),
            ("cpu", cpu_seconds),
            ("open", open_files),
        ];
        words.extend(limits.iter().flat_map(|(word, n)| [(*word).into(), n.to_string().into()]));
        words.extend(["start".into(), program.into()]);
        words
    }

    /// Reads them back: the cage, the program, and what comes after.
    pub(super) fn parse(
        mut words: impl Iterator<Item = OsString>,
    ) -> Result<(Self, PathBuf, Vec<OsString>), InvalidArguments> {
        let bounds = Bounds { memory_bytes: 0, file_bytes: 0, cpu_seconds: 0, open_files: 0 };
        let (read, write, programs) = (Vec::new(), Vec::new(), Vec::new());
        let mut cage = Self { confine: Confine::Required, read, write, programs, bounds };
        loop {
            let word = words.next().ok_or_else(|| InvalidArguments("nothing".into()))?;
            let value = words.next().ok_or_else(|| InvalidArguments(word.clone()))?;
            let number = || value.to_str().and_then(|text| text.parse().ok());
            let number = || number().ok_or_else(|| InvalidArguments(value.clone()));
            match word.to_str() {
                Some("confine") => {
                    cage.confine = named(&value).ok_or_else(|| InvalidArguments(value.clone()))?;
                }
                Some("read") => cage.read.push(value.into()),
                Some("write") => cage.write.push(value.into()),
                Some("program") => cage.programs.push(value.into()),
                Some("memory") => cage.bounds.memory_bytes = number()?,
                Some("file") => cage.bounds.file_bytes = number()?,
                Some("cpu") => cage.bounds.cpu_seconds = number()?,
                Some("open") => cage.bounds.open_files = number()?,
                Some("start") => return Ok((cage, value.into(), words.collect())),
                _ => return Err(InvalidArguments(word)),
            }
        }
    }
}

const fn name(confine: Confine) -> &'static str {
    match confine {
        Confine::Auto => "auto",
        Confine::Required => "required",
        Confine::Off => "off",
    }
}

fn named(text: &std::ffi::OsStr) -> Option<Confine> {
    [Confine::Auto, Confine::Required, Confine::Off].into_iter().find(|c| text == name(*c))
}

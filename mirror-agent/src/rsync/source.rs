//! What is asked of an rsync server: a listing, or exactly these files.

use std::{
    ffi::OsString,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use protocol::{filter::Filter, path::TreePath};

use super::{
    child::{Call, Error, Limits, Needs, Passed, Programs, run},
    exit::Failure,
    figures::Figures,
    listing::{Lines, Listing, OUT_FORMAT},
    pipe::{Duplex, Pipe, new_token},
};
use crate::{line::Line, run_log::RunLog};

/// Most paths that one rsync run is given.
pub const BATCH_FILES: usize = 20_000;
/// Most directories that rsync takes with `--copy-dest`.
const MAX_BASES: usize = 20;
/// Most bytes of rules that go as arguments; the system limits what a program may be given.
const MAX_RULE_ARGUMENTS: usize = 16 << 10;
/// Where rsync keeps what it has of a file until it is whole.
const PARTIAL_DIR: &str = ".mirrornet-partial";

/// Directory of a file of rules, in the private directory.
const RULES: &str = "rules";
/// Most bytes that a listing may take on the wire: 20 million names of a hundred bytes.
const LISTING_BYTES: u64 = 2 << 30;
/// Most bytes of a file that a run which brings nothing may write, wherever it may.
const NOTES_BYTES: u64 = 1 << 20;
/// What a transfer takes besides content, in all and for each file.
const OVERHEAD_BYTES: u64 = 16 << 20;
const FILE_OVERHEAD_BYTES: u64 = 4 << 10;

/// A file that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Where it lies below the source's path, and where it comes to lie.
    pub path: TreePath,
    /// Bytes that it has: more are not taken.
    pub size: u64,
}

/// Makes the connection to the server; called once for each run.
pub type Connect = Arc<dyn Fn() -> BoxFuture<'static, io::Result<Box<dyn Duplex>>> + Send + Sync>;

/// An rsync server, one of its modules, and how to get there.
#[derive(Clone)]
pub struct Source {
    /// Makes connections.
    pub connect: Connect,
    /// What the bytes come over.
    pub line: Arc<Line>,
    /// The host as rsync names it in messages and to the helper; connections do not depend on it.
    pub host: String,
    /// `MODULE` or `MODULE/PATH`.
    pub path: String,
    /// User at a daemon that asks for one.
    pub user: Option<String>,
    /// File with the user's password.
    pub password_file: Option<PathBuf>,
    /// Ask for compression: where bytes are dearer than the server's time.
    pub compress: bool,
    /// Programs to run.
    pub programs: Programs,
    /// Limits of each run.
    pub limits: Limits,
    /// Where calls, messages and what came are written.
    pub log: RunLog,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({}::{})", self.host, self.path)
    }
}

impl Source {
    /// Lists everything that `filter` keeps. `work` is a private directory. The bytes that passed
    /// are told in any case.
    pub async fn list(&self, filter: &Filter, work: &Path) -> (Passed, Result<Listing, Error>) {
        let prepared = fresh_dir(work, "listing").and_then(|dir| {
            let lines = Lines::begin(filter, work)?;
            Ok((dir, rule_arguments(filter, work)?, self.pipe(work)?, lines))
        });
        let (empty, rules, pipe, mut lines) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return (Passed::default(), Err(error)),
        };
        let mut args: Vec<OsString> =
            ["-rlptn", "--stats", "--no-h", "-8", "--no-motd"].map(Into::into).into();
        args.push(format!("--timeout={}", self.limits.silence.as_secs().max(1)).into());
        args.push(format!("--out-format={OUT_FORMAT}").into());
        if self.programs.list_first {
            args.push("--no-inc-recursive".into());
        }
        // What rsync cannot be told is left out by our own filter, below.
        args.extend(rules);
        args.extend(self.place(self.path.trim_matches('/'), &empty));
        let mut needs = self.needs(LISTING_BYTES);
        needs.file_bytes = NOTES_BYTES;
        needs.read.extend([empty.clone(), work.join(RULES)]);
        let call = self.call(args, Vec::new(), &empty, needs);
        let mut figures = Figures::default();
        let each = |line: &[u8]| match figures.take(line) {
            true => Ok(()),
            false => lines.push_line(line),
        };
        let (passed, done) = run(call, pipe, each).await;
        let passed = Passed { figures, ..passed };
        if let Err(error) = done {
            return (passed, Err(error));
        }
        // Of a large tree that is some seconds of work.
        match tokio::task::spawn_blocking(move || lines.finish()).await {
            Ok(listing) => (passed, listing.map_err(Error::from)),
            Err(error) => (passed, Err(Error::Io(error.into()))),
        }
    }

    /// Brings exactly these files into `stage`, an existing private directory, at the same paths.
    /// Old versions in `bases` (the live tree first) save bytes; what lies in `stage` already is resumed.
    ///
    /// On an error some files may have arrived all the same; whatever lies in `stage` has to be
    /// digested before it is believed.
    pub async fn fetch(
        &self,
        files: &[Asked],
        bases: &[PathBuf],
        stage: &Path,
        work: &Path,
    ) -> (Passed, Result<(), Error>) {
        let mut passed = Passed::default();
        let mut compress = self.compress;
        for batch in files.chunks(BATCH_FILES) {
            let (moved, result) = self.fetch_batch(batch, bases, stage, work, &mut compress).await;
            passed += moved;
            if result.is_err() {
                return (passed, result);
            }
        }
        (passed, Ok(()))
    }

    /// The same for at most [`BATCH_FILES`] files, of which more may follow: `compress` says whether to
    /// ask for compression, and no longer does once the server has refused it.
    pub async fn fetch_batch(
        &self,
        files: &[Asked],
        bases: &[PathBuf],
        stage: &Path,
        work: &Path,
        compress: &mut bool,
    ) -> (Passed, Result<(), Error>) {
        let (mut passed, mut result) = self.fetch_as(files, bases, stage, work, *compress).await;
        if *compress && matches!(result, Err(Error::Failed(Failure::RefusedOption { .. }))) {
            *compress = false;
            let moved;
            (moved, result) = self.fetch_as(files, bases, stage, work, false).await;
            passed += moved;
        }
        (passed, result)
    }

    async fn fetch_as(
        &self,
        files: &[Asked],
        bases: &[PathBuf],
        stage: &Path,
        work: &Path,
        compress: bool,
    ) -> (Passed, Result<(), Error>) {
        let pipe = match self.pipe(work) {
            Ok(pipe) => pipe,
            Err(error) => return (Passed::default(), Err(error)),
        };
        let mut args: Vec<OsString> = [
            "--files-from=-",
            "--from0",
            "--no-implied-dirs",
            "-t",
            "-S",
            "--no-links",
            "--no-perms",
            "--no-owner",
            "--no-group",
            "--no-devices",
            "--no-specials",
            "--chmod=D700,F600",
            "--fsync",
            "--stats",
            "--ignore-times",
            "--no-h",
            "-8",
            "--no-motd",
            "--out-format=%n %l",
        ]
        .map(Into::into)
        .into();
        args.push(format!("--partial-dir={PARTIAL_DIR}").into());
        args.push(format!("--timeout={}", self.limits.silence.as_secs().max(1)).into());
        if compress {
            args.push("-z".into());
        }
        for base in bases.iter().take(MAX_BASES) {
            let mut arg = OsString::from("--copy-dest=");
            arg.push(base);
            args.push(arg);
        }
        // The daemon of rsync 3.5.0 looks for listed files below the module's root, wherever the
        // source begins, and calls them vanished. So the root is the source, and `/./` says where
        // the names begin that count here.
        let (module, below) = self.module();
        args.extend(self.place(module, stage));
        let mut input = Vec::new();
        for file in files {
            input.extend_from_slice(below.as_bytes());
            input.extend_from_slice(b"./");
            input.extend_from_slice(file.path.as_bytes());
            input.push(0);
        }
        let total_bytes: u64 = files.iter().map(|file| file.size).sum();
        // What did not come out right the first time is sent once more.
        let mut needs =
            self.needs(2 * total_bytes + OVERHEAD_BYTES + FILE_OVERHEAD_BYTES * files.len() as u64);
        needs.read.extend(bases.iter().take(MAX_BASES).cloned());
        needs.write.push(stage.to_owned());
        needs.file_bytes = files.iter().map(|file| file.size).max().unwrap_or(0);
        needs.total_bytes = total_bytes;
        let mut figures = Figures::default();
        let came = |line: &[u8]| {
            if !figures.take(line) {
                self.log.line(&format!("rsync: {}", String::from_utf8_lossy(line)));
            }
            Ok(())
        };
        let (passed, done) = run(self.call(args, input, stage, needs), pipe, came).await;
        (Passed { figures, ..passed }, done)
    }

    fn needs(&self, received_bytes: u64) -> Needs {
        Needs {
            read: self.password_file.iter().cloned().collect(),
            received_bytes,
            ..Needs::default()
        }
    }

    fn call<'a>(
        &'a self,
        args: Vec<OsString>,
        input: Vec<u8>,
        dir: &'a Path,
        needs: Needs,
    ) -> Call<'a> {
        let (programs, limits, log) = (&self.programs, self.limits, &self.log);
        Call { programs, args, input, limits, dir, needs, log }
    }

    /// The module, and the path below it with a slash at its end; empty for the module's root.
    fn module(&self) -> (&str, String) {
        match self.path.trim_matches('/').split_once('/') {
            Some((module, below)) => (module, format!("{}/", below.trim_matches('/'))),
            None => (self.path.trim_matches('/'), String::new()),
        }
    }

    /// Source and destination, behind `--`: neither can be taken for an option.
    fn place(&self, path: &str, destination: &Path) -> Vec<OsString> {
        let mut args = Vec::new();
        if let Some(file) = &self.password_file {
            let mut arg = OsString::from("--password-file=");
            arg.push(file);
            args.push(arg);
        }
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        args.push("--".into());
        args.push(format!("{user}{}::{path}/", self.host).into());
        let mut destination = destination.as_os_str().to_owned();
        destination.push("/");
        args.push(destination);
        args
    }

    fn pipe(&self, work: &Path) -> Result<Pipe, Error> {
        Ok(Pipe::open(work, new_token(), (self.connect)(), Arc::clone(&self.line))?)
    }
}

/// What tells rsync the rules: the rules themselves or, where they are many, a file of them in
/// `work`.
fn rule_arguments(filter: &Filter, work: &Path) -> Result<Vec<OsString>, Error> {
    let rules = filter.rsync_rules();
    let arguments = rules.arguments();
    if arguments.iter().map(|argument| argument.len()).sum::<usize>() <= MAX_RULE_ARGUMENTS {
        return Ok(arguments);
    }
    // In a directory of its own: whatever lies there from an earlier run is gone.
    let path = fresh_dir(work, RULES)?.join("list");
    let written = std::fs::write(&path, rules.file());
    written.map_err(|source| Error::Directory { path: path.clone(), source })?;
    let mut merge = OsString::from("--filter=merge ");
    merge.push(&path);
    Ok(vec!["--from0".into(), merge])
}

/// An empty directory `name` in `work`, for this user alone.
pub fn fresh_dir(work: &Path, name: &str) -> Result<PathBuf, Error> {
    let path = work.join(name);
    let done = match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => std::fs::DirBuilder::new().mode(0o700).create(&path),
    };
    done.map_err(|source| Error::Directory { path: path.clone(), source })?;
    Ok(path)
}

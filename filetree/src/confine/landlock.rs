//! Cages and fences in the kernel's terms.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    make_bitflags,
};

use super::{Cage, Confine, Confinement, Error};

/// The newest rights that are asked for; an older kernel gives what it has.
const NEWEST: ABI = ABI::V6;

/// Where systems keep programs and what these load: nothing there is anybody's secret.
const SYSTEM: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];

/// What the loader and the C library read of a system's settings, and devices without content.
const SETTINGS: [&str; 12] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/group",
    "/etc/localtime",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf",
    "/etc/crypto-policies/back-ends/opensslcnf.config",
    "/dev/null",
    "/dev/zero",
    "/dev/urandom",
];

const NULL: &str = "/dev/null";

/// What changes a file system. `Refer` stands for names that move from one directory to another.
fn write_rights() -> BitFlags<AccessFs> {
    AccessFs::from_write(ABI::V3)
}

/// Files and directories, and nothing else.
const STAGE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | Refer | MakeReg | MakeDir | RemoveFile | RemoveDir
});
const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
const RUN: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir | Execute});

pub(super) fn keep_writes_below(dirs: &[PathBuf], confine: Confine) -> Result<Confinement, Error> {
    if confine == Confine::Off {
        return Ok(Confinement::Off);
    }
    let Ok(ruleset) = with_moves() else { return Ok(Confinement::Unavailable) };
    let mut rules = ruleset
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(write_rights())?
        .create()?;
    for dir in dirs.iter().filter(|dir| dir.exists()) {
        rules = allow(rules, dir, write_rights())?;
    }
    rules = allow(rules, Path::new(NULL), write_rights())?;
    restrict(rules)
}

/// Before Linux 5.19 a confined program can move nothing from one directory to another, which is what
/// an agent does all day.
fn with_moves() -> Result<Ruleset, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Refer)
}

pub(super) fn is_available() -> bool {
    with_moves().is_ok()
}

pub(super) fn close(cage: &Cage) -> Result<Confinement, Error> {
    if cage.confine == Confine::Off {
        return Ok(Confinement::Off);
    }
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        // Its connection, if it has one, is open already.
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let system = SYSTEM.iter().map(|path| (PathBuf::from(path), RUN));
    let settings = SETTINGS.iter().map(|path| (PathBuf::from(path), READ));
    let programs = cage.programs.iter().flat_map(|program| {
        let libraries = libraries_of(program).into_iter().map(|dir| (dir, READ));
        std::iter::once((program.clone(), RUN)).chain(libraries)
    });
    let read = cage.read.iter().map(|path| (path.clone(), READ));
    for (path, rights) in system.chain(settings).chain(programs).chain(read) {
        // What is not there cannot be reached anyway.
        if path.exists() {
            rules = allow(rules, &path, rights)?;
        }
    }
    rules = allow(rules, Path::new(NULL), AccessFs::WriteFile.into())?;
    for dir in &cage.write {
        rules = allow(rules, dir, STAGE)?;
    }
    restrict(rules)
}

/// Where a program in `PREFIX/bin` has its libraries.
fn libraries_of(program: &Path) -> Vec<PathBuf> {
    let Some(bin) = program.parent().filter(|dir| dir.ends_with("bin")) else { return Vec::new() };
    ["lib", "lib64"].iter().map(|name| bin.with_file_name(name)).collect()
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, Error> {
    let opened = PathFd::new(path);
    let opened = opened.map_err(|source| Error::Path { path: path.to_owned(), source })?;
    // The other rights make no sense for a file.
    let rights = if path.is_dir() { rights } else { rights & AccessFs::from_file(NEWEST) };
    Ok(rules.add_rule(PathBeneath::new(opened, rights))?)
}

fn restrict(rules: RulesetCreated) -> Result<Confinement, Error> {
    let status = rules.restrict_self().map_err(RulesetError::from)?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Confinement::Full,
        RulesetStatus::PartiallyEnforced => Confinement::Partial,
        RulesetStatus::NotEnforced => Confinement::Unavailable,
    })
}

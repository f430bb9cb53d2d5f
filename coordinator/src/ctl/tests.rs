//! What is accepted on the command line, and what is not.

use clap::CommandFactory as _;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("mirrorctl").chain(line.split_whitespace()))
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn what_the_documentation_shows_is_accepted() {
    let lines = [
        "login mirrornet1.a.b.c.https://h:1",
        "login -",
        "whoami",
        "--identity /tmp/x whoami --output json",
        "invite --role agent --name lisbon-1 --site lisbon --ttl 1h",
        "invite --role viewer --name dashboard",
        "revoke agent/lisbon-1 --reason sold",
        "root draft --add-definition-key ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo= --out n",
        "mandate sign -f a.toml b.toml --network n --key k --out o --end fedora@lisbon",
        "mandate publish o",
        "apply -f a.toml b.toml --dry-run",
        "apply -f a.toml -f b.toml --prune --yes",
        "apply -f -",
        "get trees",
        "get tree fedora",
        "get runs",
        "describe assignment fedora@lisbon",
        "delete grant fedora@lisbon",
        "status --watch",
        "history fedora@lisbon",
        "history --site lisbon --tree fedora",
        "stats --output json",
        "sync fedora@lisbon",
        "enable fedora@lisbon debian@lisbon",
        "disable fedora@lisbon",
        "approve fedora@12",
        "approve fedora --manifest b3:0000000000000000000000000000000000000000000000000000000000000000",
        "reject fedora",
        "filter preview --rules f d -0",
        "filter preview --rules f --explain d",
        "filter test f a b/ c",
        "completions zsh",
        "man /tmp/x",
    ];
    for line in lines {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
    }
}

#[test]
fn what_is_called_wrongly_ends_with_code_2_and_says_what_is_missing() {
    let lines = [
        ("", "Usage"),
        ("invite --role agent --name a", "--site"),
        ("invite --role agnt --name a", "not a role"),
        ("invite --role agent --name A --site s", "name \"A\" is not valid"),
        ("invite --role agent --name a --site s --ttl 5", "a time such as 30s"),
        ("apply", "--file"),
        ("get thing", "the kinds are network, upstream"),
        ("describe tree", "<NAME>"),
        ("sync fedora", "write TREE@SITE"),
        ("approve fedora --manifest x", "--manifest"),
        ("filter", "Usage"),
        ("filter preview d", "--rules"),
        ("filter preview --rules f d -0 --explain", "cannot be used with"),
        ("completions csh", "bash"),
        ("plan", "unrecognized subcommand"),
        ("--output xml whoami", "json"),
    ];
    for (line, word) in lines {
        let error = parse(line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(word), "{line}: {error}");
    }
}

//! `docs/reference/mirrorctl.md`, as text.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};

use super::Cli;

/// The whole reference.
fn reference() -> String {
    let mut command = Cli::command();
    command.build();
    let mut text = String::from(
        "# mirrorctl\n\nMade from the program's own help by its tests; `MIRRORNET_BLESS=1 cargo test -p coordinator` writes it anew.\n",
    );
    section(&mut text, &command, "mirrorctl");
    text
}

fn section(text: &mut String, command: &Command, name: &str) {
    if command.get_name() == "help" {
        return;
    }
    let about = command.get_long_about().or_else(|| command.get_about());
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage).to_owned();
    write!(
        text,
        "\n## {name}\n\n{}.\n\n```\n{usage}\n```\n",
        about.map(ToString::to_string).unwrap_or_default().trim_end_matches('.')
    )
    .unwrap();
    let is_root = !name.contains(' ');
    let shown = |arg: &&Arg| {
        let general = matches!(arg.get_id().as_str(), "help" | "version");
        !general && (is_root || !arg.is_global_set())
    };
    let rows: Vec<_> = command.get_arguments().filter(shown).map(row).collect();
    if !rows.is_empty() {
        writeln!(text, "\n| Argument | Meaning |\n|---|---|\n{}", rows.join("\n")).unwrap();
    }
    if let Some(example) = command.get_after_help() {
        let example = example.to_string();
        let lines = example.lines().skip(1).map(str::trim).collect::<Vec<_>>().join("\n");
        write!(text, "\nExample:\n\n```\n{lines}\n```\n").unwrap();
    }
    for verb in command.get_subcommands() {
        section(text, verb, &format!("{name} {}", verb.get_name()));
    }
}

fn row(arg: &Arg) -> String {
    let name = arg.to_string().replace('|', "\\|");
    let help = arg.get_long_help().or_else(|| arg.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default().replace('\n', " ");
    let values: Vec<_> =
        arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    let takes_value = arg.get_action().takes_values();
    let values = match values.is_empty() || !takes_value {
        true => String::new(),
        false => format!(" One of {}.", values.join(", ")),
    };
    format!("| `{name}` | {}.{values} |", help.replace('|', "\\|"))
}

#[test]
fn the_reference_in_the_documentation_is_what_the_program_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/mirrorctl.md");
    let wanted = reference();
    if std::env::var_os("MIRRORNET_BLESS").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference")).unwrap();
        std::fs::write(path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == wanted, "{path} is out of date: run this test with MIRRORNET_BLESS=1");
}

#[test]
fn every_verb_says_what_it_does_and_gives_an_example() {
    fn check(command: &Command) {
        let name = command.get_name();
        if name == "help" {
            return;
        }
        assert!(command.get_about().is_some(), "{name}");
        let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(example.starts_with("Example:\n  mirrorctl"), "{name}: {example:?}");
        command.get_subcommands().for_each(check);
        for arg in command.get_arguments() {
            assert!(arg.get_help().is_some(), "{name}: {arg}");
        }
    }
    let mut command = Cli::command();
    command.build();
    check(&command);
}

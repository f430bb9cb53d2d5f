//! `docs/reference/mirrorctl.md`, and what every verb owes its reader.

use clap::{Command, CommandFactory as _};

use super::Cli;

#[test]
fn the_reference_in_the_documentation_is_what_the_program_says() {
    reference::check("mirrorctl", &reference::program(Cli::command(), "coordinator"));
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

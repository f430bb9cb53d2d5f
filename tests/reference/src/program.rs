//! The page of a program: its help, as a text that can be searched and linked.

use clap::{Arg, Command};

/// The page of a program that `cargo test -p PACKAGE` writes anew.
pub fn program(mut command: Command, package: &str) -> String {
    command.build();
    let name = command.get_name().to_owned();
    let mut text = format!(
        "# {name}\n\nMade from the program's own help by its tests; `MIRRORNET_BLESS=1 cargo test -p {package}` writes it anew.\n",
    );
    section(&mut text, &command, &name);
    text
}

fn section(text: &mut String, command: &Command, name: &str) {
    if command.get_name() == "help" || command.is_hide_set() {
        return;
    }
    let about = command.get_long_about().or_else(|| command.get_about());
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    let about = about.map(ToString::to_string).unwrap_or_default();
    let about = about.trim_end_matches('.');
    text.push_str(&format!("\n## {name}\n\n{about}.\n\n```\n{usage}\n```\n"));
    let is_root = !name.contains(' ');
    let shown = |arg: &&Arg| {
        let general = matches!(arg.get_id().as_str(), "help" | "version") || arg.is_hide_set();
        !general && (is_root || !arg.is_global_set())
    };
    let rows: Vec<_> = command.get_arguments().filter(shown).map(row).collect();
    if !rows.is_empty() {
        text.push_str(&format!("\n| Argument | Meaning |\n|---|---|\n{}\n", rows.join("\n")));
    }
    if let Some(example) = command.get_after_help() {
        let example = example.to_string();
        let lines = example.lines().skip(1).map(|line| line.strip_prefix("  ").unwrap_or(line));
        let lines = lines.collect::<Vec<_>>().join("\n");
        text.push_str(&format!("\nExample:\n\n```\n{lines}\n```\n"));
    }
    for verb in command.get_subcommands() {
        section(text, verb, &format!("{name} {}", verb.get_name()));
    }
}

fn row(arg: &Arg) -> String {
    let name = arg.to_string().replace('|', "\\|");
    let help = arg.get_long_help().or_else(|| arg.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let help = help.trim_end_matches('.').replace('\n', " ").replace('|', "\\|");
    let takes_value = arg.get_action().takes_values();
    let values = arg.get_possible_values();
    let values: Vec<_> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
    let values = match values.is_empty() || !takes_value {
        true => String::new(),
        false => format!(" One of {}.", values.join(", ")),
    };
    let default = arg.get_default_values();
    let default = match default.first().filter(|_| takes_value && !arg.is_hide_default_value_set())
    {
        Some(value) => format!(" Default: `{}`.", value.to_string_lossy()),
        None => String::new(),
    };
    format!("| `{name}` | {help}.{values}{default} |")
}

#[cfg(test)]
mod tests {
    use clap::arg;

    use super::*;

    #[test]
    fn a_page_has_every_command_and_argument_that_people_may_use() {
        let hidden = Command::new("inner").hide(true);
        let sync = Command::new("sync")
            .about("Bring a tree up to date")
            .arg(arg!(--mode <MODE> "How").value_parser(["a|b", "c"]).default_value("c"))
            .arg(arg!(--secret "Not shown").hide(true))
            .after_help("Example:\n  agent sync \\\n    --mode c");
        let page = program(Command::new("agent").about("Syncs.").subcommands([sync, hidden]), "x");
        assert!(page.contains("## agent sync\n\nBring a tree up to date.\n"), "{page}");
        assert!(
            page.contains("| `--mode <MODE>` | How. One of `a|b`, `c`. Default: `c`. |"),
            "{page}"
        );
        assert!(page.contains("agent sync \\\n  --mode c\n"), "{page}");
        assert!(!page.contains("inner") && !page.contains("secret"), "{page}");
    }
}

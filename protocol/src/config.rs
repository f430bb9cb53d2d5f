//! Configuration in layers: built-in defaults < file < `MIRRORNET_*` environment < flags.
//!
//! Why of our own: a key that nobody reads must be an error that names the key and where it
//! stands, and `--print-config` has to say for every value where it came from. Each layer is
//! therefore checked by itself, by reading it as the program's own type, before the layers are
//! laid over each other. Nothing here touches a disk or the process's environment; callers pass
//! both in.
//!
//! The configuration type has `#[serde(default, deny_unknown_fields)]`, in its nested tables too,
//! because every layer names only a part. What must be set is checked by the program afterwards.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

/// Prefix of the variables that are read.
pub const PREFIX: &str = "MIRRORNET_";
/// Variables with the prefix that mean something else than a configuration key.
const NOT_KEYS: [&str; 4] =
    ["MIRRORNET_IDENTITY", "MIRRORNET_COORDINATOR", "MIRRORNET_CONFIG", "MIRRORNET_FAIL_AT"];
/// How deep tables within tables are listed value by value.
const MAX_DEPTH: usize = 16;

/// What the layers are read from, the weakest first.
#[derive(Debug, Default)]
pub struct Sources {
    /// The file's name, as the admin knows it, and its text.
    pub file: Option<(String, String)>,
    /// The environment; variables without [`PREFIX`] are passed over.
    pub environment: Vec<(String, String)>,
    /// Flags that were given: dotted key and value.
    pub flags: Vec<(&'static str, Value)>,
}

/// A configuration with the origin of each of its values.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The configuration.
    pub config: T,
    /// Every value that is set, in the order of its keys.
    pub values: Vec<Setting>,
}

/// One value and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Dotted key.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// Where it came from.
    pub origin: Origin,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// The configuration file of this name.
    File(String),
    /// The environment variable of this name.
    Variable(String),
    /// A flag on the command line.
    Flag(String),
}

/// Why a configuration is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not TOML, has a key that does not exist, or a value that does not fit.
    #[error("the configuration file {file} is not accepted")]
    File {
        /// Its name.
        file: String,
        /// Key, line and what is wrong.
        source: Box<toml::de::Error>,
    },
    /// A variable names a key that does not exist, or its value does not fit.
    #[error("the environment variable {name} (key {key}) is not accepted: {reason}")]
    Variable {
        /// The variable.
        name: String,
        /// The key that it sets.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A flag's value does not fit.
    #[error("--{name} is not accepted: {reason}")]
    Flag {
        /// The flag.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The layers fit one by one but not together.
    #[error("the configuration is not accepted: {reason}")]
    Whole {
        /// What is wrong.
        reason: String,
    },
}

/// Lays the layers over each other.
///
/// # Errors
/// At the first layer that has a key which `T` does not know or a value that does not fit.
pub fn load<T>(sources: Sources) -> Result<Loaded<T>, Error>
where
    T: Default + Serialize + DeserializeOwned,
{
    let whole = |reason: String| Error::Whole { reason };
    let defaults = Table::try_from(T::default()).map_err(|error| whole(error.to_string()))?;
    let mut merged = Merged::default();
    merged.lay(defaults, &Origin::Default);
    if let Some((file, text)) = sources.file {
        let refused = |source| Error::File { file: file.clone(), source: Box::new(source) };
        toml::from_str::<T>(&text).map_err(refused)?;
        let table = toml::from_str::<Table>(&text).map_err(refused)?;
        merged.lay(table, &Origin::File(file));
    }
    for (name, text) in sources.environment {
        if let Some(key) = key_of(&name) {
            let table = variable::<T>(&name, &key, &text)?;
            merged.lay(table, &Origin::Variable(name));
        }
    }
    for (key, value) in sources.flags {
        let table = nested(key, value);
        let name = key.replace('.', "-");
        check::<T>(&table).map_err(|reason| Error::Flag { name: name.clone(), reason })?;
        merged.lay(table, &Origin::Flag(format!("--{name}")));
    }
    let config = T::deserialize(Value::Table(merged.table.clone()))
        .map_err(|error| whole(error.message().to_owned()))?;
    Ok(Loaded { config, values: merged.settings() })
}

#[derive(Default)]
struct Merged {
    table: Table,
    origins: Vec<(String, Origin)>,
}

impl Merged {
    fn lay(&mut self, over: Table, origin: &Origin) {
        let mut leaves = Vec::new();
        flatten("", &over, 0, &mut leaves);
        for (key, _) in leaves {
            // Whatever the new value replaces, a whole table included, loses its origin.
            let below = format!("{key}.");
            self.origins.retain(|(old, _)| *old != key && !old.starts_with(&below));
            self.origins.push((key, origin.clone()));
        }
        overlay(&mut self.table, over);
    }

    fn settings(&self) -> Vec<Setting> {
        let mut leaves = Vec::new();
        flatten("", &self.table, 0, &mut leaves);
        let origin = |key: &str| {
            let found = self.origins.iter().find(|(name, _)| name == key);
            found.map_or(Origin::Default, |(_, origin)| origin.clone())
        };
        leaves
            .into_iter()
            .map(|(key, value)| Setting { origin: origin(&key), key, value })
            .collect()
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}  # {}", self.key, without_secret(&self.value), self.origin)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(name) | Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

fn overlay(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => overlay(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

fn flatten(prefix: &str, table: &Table, depth: usize, leaves: &mut Vec<(String, Value)>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) if depth < MAX_DEPTH => flatten(&key, inner, depth + 1, leaves),
            value => leaves.push((key, value.clone())),
        }
    }
}

/// `MIRRORNET_DATABASE__URL` sets `database.url`; `MIRRORNET_ENROLL_LISTEN` sets `enroll-listen`.
fn key_of(name: &str) -> Option<String> {
    let rest = name.strip_prefix(PREFIX).filter(|_| !NOT_KEYS.contains(&name))?;
    Some(rest.replace("__", ".").replace('_', "-").to_ascii_lowercase())
}

/// The value as text if the key takes text, else as TOML (numbers, lists, tables).
fn variable<T: DeserializeOwned>(name: &str, key: &str, text: &str) -> Result<Table, Error> {
    let as_text = nested(key, Value::String(text.to_owned()));
    let reason = match check::<T>(&as_text) {
        Ok(()) => return Ok(as_text),
        Err(reason) => reason,
    };
    let refused = Error::Variable { name: name.to_owned(), key: key.to_owned(), reason };
    let parsed = toml::from_str::<Table>(&format!("value = {text}"));
    let Some(value) = parsed.ok().and_then(|mut table| table.remove("value")) else {
        return Err(refused);
    };
    let table = nested(key, value);
    check::<T>(&table).map_err(|_| refused)?;
    Ok(table)
}

fn check<T: DeserializeOwned>(table: &Table) -> Result<(), String> {
    T::deserialize(Value::Table(table.clone()))
        .map(drop)
        .map_err(|error| error.message().to_owned())
}

fn nested(key: &str, value: Value) -> Table {
    let mut parts = key.split('.').rev();
    let mut table = Table::new();
    if let Some(last) = parts.next() {
        table.insert(last.to_owned(), value);
    }
    for part in parts {
        table = Table::from_iter([(part.to_owned(), Value::Table(table))]);
    }
    table
}

/// A password inside a URL is never printed.
fn without_secret(value: &Value) -> Value {
    let Value::String(text) = value else { return value.clone() };
    let masked = || {
        let (scheme, rest) = text.split_once("://")?;
        let (user_info, host) = rest.split_once('/').unwrap_or((rest, "")).0.rsplit_once('@')?;
        let (user, _) = user_info.split_once(':')?;
        let tail = rest.split_once('/').map_or(String::new(), |(_, path)| format!("/{path}"));
        Some(format!("{scheme}://{user}:***@{host}{tail}"))
    };
    Value::String(masked().unwrap_or_else(|| text.clone()))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
    struct Config {
        listen: String,
        enroll_listen: Option<String>,
        workers: u32,
        database: Database,
        names: Vec<String>,
    }

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
    struct Database {
        url: Option<String>,
        pool: Option<u32>,
    }

    impl Default for Config {
        fn default() -> Self {
            Self {
                listen: "0.0.0.0:1".into(),
                enroll_listen: None,
                workers: 2,
                database: Database::default(),
                names: vec![],
            }
        }
    }

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn the_stronger_layer_wins_and_every_value_names_its_origin() {
        let sources = Sources {
            file: Some((
                "/etc/c.toml".into(),
                "listen = \"a\"\nworkers = 3\n[database]\npool = 4\n".into(),
            )),
            environment: variables(&[
                ("MIRRORNET_WORKERS", "5"),
                ("MIRRORNET_DATABASE__URL", "postgres://me:secret@db/x"),
                ("MIRRORNET_NAMES", "[\"a\", \"b\"]"),
                ("MIRRORNET_ENROLL_LISTEN", "8444"),
                ("MIRRORNET_IDENTITY", "/root/id"),
                ("MIRRORNET_COORDINATOR", "https://c:8443"),
                ("PATH", "/bin"),
            ]),
            flags: vec![("listen", Value::String("c".into()))],
        };
        let loaded: Loaded<Config> = load(sources).unwrap();
        assert_eq!(loaded.config.listen, "c");
        assert_eq!(loaded.config.enroll_listen.as_deref(), Some("8444"));
        assert_eq!(loaded.config.workers, 5);
        assert_eq!(loaded.config.database.pool, Some(4));
        assert_eq!(loaded.config.names, ["a", "b"]);
        let mut printed: Vec<_> = loaded.values.iter().map(ToString::to_string).collect();
        printed.sort();
        assert_eq!(
            printed,
            [
                "database.pool = 4  # /etc/c.toml",
                "database.url = \"postgres://me:***@db/x\"  # MIRRORNET_DATABASE__URL",
                "enroll-listen = \"8444\"  # MIRRORNET_ENROLL_LISTEN",
                "listen = \"c\"  # --listen",
                "names = [\"a\", \"b\"]  # MIRRORNET_NAMES",
                "workers = 5  # MIRRORNET_WORKERS",
            ]
        );
    }

    #[test]
    fn without_any_layer_the_defaults_stand() {
        let loaded: Loaded<Config> = load(Sources::default()).unwrap();
        assert_eq!(loaded.config.listen, "0.0.0.0:1");
        assert!(loaded.values.iter().all(|setting| setting.origin == Origin::Default));
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it_and_where_it_stands() {
        let file = |text: &str| Sources {
            file: Some(("c.toml".into(), text.into())),
            ..Sources::default()
        };
        let error = load::<Config>(file("workers = 1\nlissten = \"x\"\n")).unwrap_err();
        assert!(error.to_string().contains("c.toml"), "{error}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("line 2") && source.contains("lissten"), "{source}");
        assert!(load::<Config>(file("[database]\nurll = \"x\"\n")).is_err());

        let environment = variables(&[("MIRRORNET_LISSTEN", "x")]);
        let error = load::<Config>(Sources { environment, ..Sources::default() }).unwrap_err();
        assert!(error.to_string().contains("MIRRORNET_LISSTEN (key lissten)"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused_in_every_layer() {
        let environment = variables(&[("MIRRORNET_WORKERS", "many")]);
        assert!(load::<Config>(Sources { environment, ..Sources::default() }).is_err());
        let flags = vec![("workers", Value::String("many".into()))];
        let error = load::<Config>(Sources { flags, ..Sources::default() }).unwrap_err();
        assert!(error.to_string().starts_with("--workers"), "{error}");
    }
}

//! What admins defined, and what they asked for.

use protocol::{
    generation::Revision,
    v1::definitions::{Definition, Kind},
};

use super::{Error, Transaction, execute, from_bigint, from_json, rows, to_bigint, to_json};

/// A stored definition.
pub type StoredDefinition = Definition;

impl Transaction {
    /// Every definition, by kind and name.
    pub async fn definitions(&mut self) -> Result<Vec<StoredDefinition>, Error> {
        let sql = "SELECT kind, name, spec, revision FROM definitions ORDER BY kind, name";
        rows!(self, (String, String, String, i64), sql)?
            .into_iter()
            .map(|(kind, name, spec, revision)| {
                Ok(Definition {
                    kind: kind_from(&kind)?,
                    name,
                    revision: Revision(from_bigint(revision)),
                    spec: from_json("definition", &spec)?,
                })
            })
            .collect()
    }

    /// Stores a definition over an earlier one.
    pub async fn put_definition(&mut self, definition: &Definition) -> Result<(), Error> {
        execute!(
            self,
            "INSERT INTO definitions (kind, name, spec, revision) VALUES ($1, $2, $3, $4)
             ON CONFLICT (kind, name) DO UPDATE SET spec = excluded.spec,
                revision = excluded.revision",
            definition.kind.as_str(),
            definition.name.as_str(),
            to_json("definition", &definition.spec)?,
            to_bigint(definition.revision.0),
        )
        .map(drop)
    }

    /// Removes a definition.
    pub async fn remove_definition(&mut self, kind: Kind, name: &str) -> Result<(), Error> {
        let sql = "DELETE FROM definitions WHERE kind = $1 AND name = $2";
        execute!(self, sql, kind.as_str(), name).map(drop)
    }

    /// How often a run (`sync`) or a scan (`publish`) was asked for: kind, name and number.
    pub async fn requests(&mut self) -> Result<Vec<(String, String, u64)>, Error> {
        let found = rows!(self, (String, String, i64), "SELECT kind, name, count FROM requests")?;
        Ok(found.into_iter().map(|(kind, name, count)| (kind, name, from_bigint(count))).collect())
    }

    /// Asks once more for a run or a scan.
    pub async fn add_request(&mut self, kind: &str, name: &str) -> Result<(), Error> {
        execute!(
            self,
            "INSERT INTO requests (kind, name, count) VALUES ($1, $2, 1)
             ON CONFLICT (kind, name) DO UPDATE SET count = requests.count + 1",
            kind,
            name,
        )
        .map(drop)
    }
}

fn kind_from(text: &str) -> Result<Kind, Error> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == text);
    kind.ok_or_else(|| Error::corrupt("definition", format_args!("{text:?} is no kind")))
}

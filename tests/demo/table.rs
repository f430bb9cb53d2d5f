//! The table at the end of the demonstration.

use std::fmt;

use comfy_table::{CellAlignment, presets};
use serde_json::Value;

/// What arrived where, by which way.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<[String; 9]>,
}

impl Table {
    /// Adds what a run brought: a row for each way, with its encoders where it came by pack.
    pub(crate) fn add(&mut self, what: &str, run: &Value) {
        let (tree, site) = run["assignment"].as_str().unwrap().split_once('@').unwrap();
        let generation = run["to"]["generation"].to_string();
        for way in run["ways"].as_array().unwrap() {
            let name = way["way"].as_str().unwrap();
            let encoders: Vec<String> = run["encoders"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|_| name == "pack")
                .map(|e| format!("{} {}", e["files"], e["encoder"].as_str().unwrap()))
                .collect();
            let number = |key: &str| way[key].as_u64().unwrap();
            let wire = number("received-bytes") + number("sent-bytes");
            if number("files") == 0 && wire == 0 {
                continue;
            }
            self.rows.push([
                what.to_owned(),
                tree.to_owned(),
                site.to_owned(),
                generation.clone(),
                name.to_owned(),
                encoders.join(", "),
                number("files").to_string(),
                wire.to_string(),
                format!("{:.2}", number("milliseconds") as f64 / 1000.0),
            ]);
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        let titles = [
            "what",
            "tree",
            "site",
            "generation",
            "way",
            "encoder",
            "files",
            "bytes on the wire",
            "seconds",
        ];
        table.set_header(titles);
        table.add_rows(self.rows.iter().cloned());
        for numeric in [3, 6, 7, 8] {
            if let Some(column) = table.column_mut(numeric) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        f.write_str(&table.to_string())
    }
}

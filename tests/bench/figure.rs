//! One measured figure beside its peer.

use comfy_table::{CellAlignment, presets};

/// A measurement, what it is compared with, and the most that it may be.
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) ours: f64,
    pub(crate) unit: &'static str,
    pub(crate) peer: Option<(&'static str, f64)>,
    /// Of the ratio to the peer where there is one, else of the figure itself.
    pub(crate) most: f64,
}

impl Figure {
    fn judged(&self) -> f64 {
        self.peer.map_or(self.ours, |(_, peer)| self.ours / peer)
    }

    pub(crate) fn is_missed(&self) -> bool {
        let judged = self.judged();
        // A figure that is no number was not measured, and that is a miss too.
        judged.is_nan() || judged > self.most
    }
}

pub(crate) fn table(figures: &[Figure]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["figure", "ours", "peer", "ratio", "at most", ""]);
    for figure in figures {
        let amount = |value: f64| format!("{} {}", plain(value), figure.unit);
        table.add_row([
            figure.what.clone(),
            amount(figure.ours),
            figure.peer.map_or(String::new(), |(name, value)| format!("{name}: {}", amount(value))),
            figure.peer.map_or(String::new(), |_| format!("{:.3}", figure.judged())),
            plain(figure.most),
            if figure.is_missed() { "MISSED" } else { "met" }.into(),
        ]);
    }
    for numeric in [1, 2, 3, 4] {
        if let Some(column) = table.column_mut(numeric) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn plain(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

/// The middle one of several measurements.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

//! The figures, their ratios and their goals.

use std::fmt;

/// What a row promises.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// Ours is at least that share of the baseline.
    AtLeast(f64),
    /// Ours is at most that share of the baseline.
    AtMost(f64),
    /// Ours is at most that much, whatever the baseline.
    Below(f64),
    /// Ours is at most that much more than the baseline.
    Over(f64),
    /// Nothing: it shows what the machine does by itself.
    None,
}

/// One row.
#[derive(Debug)]
pub struct Row {
    /// What was measured, with its unit.
    pub name: String,
    /// Without anything between.
    pub direct: Option<f64>,
    /// With two bare relays between.
    pub floor: Option<f64>,
    /// With the product between.
    pub ours: f64,
    /// The median of ratios, where each was measured in turns close to one another.
    pub paired: Option<f64>,
    /// What was promised.
    pub goal: Goal,
}

impl Row {
    /// Ours as a share of the floor, or of the direct figure where there is no floor.
    fn ratio(&self) -> Option<f64> {
        self.paired.or_else(|| self.base().map(|base| self.ours / base))
    }

    fn base(&self) -> Option<f64> {
        self.floor.or(self.direct)
    }

    fn met(&self) -> bool {
        match (self.goal, self.ratio()) {
            (Goal::AtLeast(share), Some(ratio)) => ratio >= share,
            (Goal::AtMost(share), Some(ratio)) => ratio <= share,
            (Goal::Below(most), _) => self.ours <= most,
            (Goal::Over(most), _) => self.base().is_some_and(|base| self.ours - base <= most),
            (Goal::None, _) => true,
            (_, None) => false,
        }
    }
}

/// All rows, in the order of their measurement.
#[derive(Debug)]
pub struct Table {
    floor: &'static str,
    rows: Vec<Row>,
}

impl Table {
    /// An empty one whose floor has that name.
    #[must_use]
    pub fn beside(floor: &'static str) -> Self {
        Self { floor, rows: Vec::new() }
    }

    /// Adds a row and says it at once, since the whole takes minutes.
    pub fn add(&mut self, row: Row) {
        eprintln!("{}: {:.2}", row.name, row.ours);
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number =
            |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
        let share = |row: &Row| match row.paired {
            Some(ratio) => format!("{ratio:.3}"),
            None => number(row.ratio()),
        };
        writeln!(f, "| what | direct | {} | mirrord | ratio | goal | |", self.floor)?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let goal = match row.goal {
                Goal::AtLeast(share) => format!("≥ {share:.2} ×"),
                Goal::AtMost(share) => format!("≤ {share:.2} ×"),
                Goal::Below(most) => format!("≤ {most}"),
                Goal::Over(most) => format!("≤ + {most}"),
                Goal::None => String::new(),
            };
            writeln!(
                f,
                "| {} | {} | {} | {:.2} | {} | {goal} | {} |",
                row.name,
                number(row.direct),
                number(row.floor),
                row.ours,
                share(row),
                match row.goal {
                    Goal::None => "",
                    _ if row.met() => "met",
                    _ => "MISSED",
                },
            )?;
        }
        Ok(())
    }
}

/// The middle of what was measured.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_a_share_of_the_floor_before_the_direct_figure() {
        let row = |ours, goal| Row {
            name: "x".into(),
            direct: Some(1.0),
            floor: Some(10.0),
            ours,
            paired: None,
            goal,
        };
        assert!(row(9.0, Goal::AtLeast(0.9)).met());
        assert!(!row(8.9, Goal::AtLeast(0.9)).met());
        assert!(row(11.0, Goal::AtMost(1.15)).met());
        assert!(!row(11.0, Goal::Below(10.5)).met());
        assert!(row(11.0, Goal::Over(1.5)).met() && !row(11.0, Goal::Over(0.5)).met());
        let paired = Row { paired: Some(0.97), ..row(1.0, Goal::AtLeast(0.97)) };
        assert!(paired.met());
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}

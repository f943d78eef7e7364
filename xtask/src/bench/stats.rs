//! Medians, and how far the rounds lie apart.

/// Figures of one kind, one a round.
#[derive(Clone, Debug, Default)]
pub(super) struct Series(Vec<f64>);

impl Series {
    pub(super) fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// The middle one; the mean of the two in the middle. `None` without any.
    pub(super) fn median(&self) -> Option<f64> {
        let middle = self.0.len() / 2;
        match self.0.len() {
            0 => None,
            n if n % 2 == 1 => Some(self.0[middle]),
            _ => Some((self.0[middle - 1] + self.0[middle]) / 2.0),
        }
    }

    /// The quickest and the slowest round.
    pub(super) fn range(&self) -> Option<(f64, f64)> {
        Some((*self.0.first()?, *self.0.last()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_odd_and_even_counts() {
        let mut series = Series::default();
        assert_eq!(series.median(), None);
        for value in [9.0, 1.0, 5.0] {
            series.push(value);
        }
        assert_eq!((series.median(), series.range()), (Some(5.0), Some((1.0, 9.0))));
        series.push(6.0);
        assert_eq!(series.median(), Some(5.5));
    }
}

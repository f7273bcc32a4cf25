//! Estimates of waiting times.

/// Seconds until each of `waiting` pieces, in order, can begin. `left` has the seconds that each piece being written
/// still takes, if known; `typical` is what a whole piece takes.
pub fn waits(slots: usize, left: &[Option<f64>], typical: Option<f64>, waiting: usize) -> Vec<Option<f64>> {
    let known = |left: &Option<f64>| left.or(typical.map(|whole| whole / 2.0));
    let Some(mut free) = left.iter().map(known).collect::<Option<Vec<f64>>>() else { return vec![None; waiting] };
    free.resize(slots.max(left.len()).max(1), 0.0);
    let mut waits = Vec::with_capacity(waiting);
    for _ in 0..waiting {
        let Some(next) = free.iter_mut().min_by(|a, b| a.total_cmp(b)) else { break };
        waits.push(next.is_finite().then_some(*next));
        // As long as no piece has finished, only the first slots to become free are known.
        *next += typical.unwrap_or(f64::INFINITY);
    }
    waits
}

/// A running mean in which the new value counts a fifth.
pub fn running_mean(mean: Option<f64>, new: f64) -> f64 {
    mean.map_or(new, |mean| mean + (new - mean) * 0.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_takes_the_slot_that_is_free_first() {
        let left = [Some(30.0), Some(10.0)];
        assert_eq!(waits(2, &left, Some(60.0), 4), [10.0, 30.0, 70.0, 90.0].map(Some));
        assert_eq!(waits(3, &left, Some(60.0), 2), [0.0, 10.0].map(Some));
    }

    #[test]
    fn what_is_not_known_is_guessed_or_left_open() {
        assert_eq!(waits(2, &[None, Some(50.0)], Some(60.0), 1), [Some(30.0)]);
        assert_eq!(waits(1, &[None], None, 2), [None, None]);
        assert_eq!(waits(1, &[Some(5.0)], None, 2), [Some(5.0), None]);
    }

    #[test]
    fn the_mean_follows() {
        assert_eq!(running_mean(None, 10.0), 10.0);
        assert_eq!(running_mean(Some(10.0), 20.0), 12.0);
    }
}

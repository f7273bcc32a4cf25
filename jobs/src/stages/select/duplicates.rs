//! Pieces that are better pieces over again.
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The bars of the pieces kept so far.
pub struct Bars {
    /// The portion of bars in common that makes a duplicate, of the piece that has fewer.
    limit: f64,
    /// Name and number of different bars.
    pieces: Vec<(String, usize)>,
    /// The pieces that have a bar.
    with: HashMap<u64, Vec<usize>>,
}

impl Bars {
    pub fn new(limit: f64) -> Bars {
        Bars { limit, pieces: Vec::new(), with: HashMap::new() }
    }

    /// Keeps a piece, unless one of those kept is the same: then that one and the portion of bars in common.
    pub fn add(&mut self, name: &str, bars: &[String]) -> Option<(String, f64)> {
        let bars: HashSet<u64> = bars.iter().map(hash).collect();
        let mut common: HashMap<usize, usize> = HashMap::new();
        for piece in bars.iter().flat_map(|bar| self.with.get(bar).into_iter().flatten()) {
            *common.entry(*piece).or_default() += 1;
        }
        let share = |(piece, shared): (&usize, &usize)| {
            let (name, size) = &self.pieces[*piece];
            (*shared as f64 / bars.len().min(*size) as f64, name)
        };
        // Of several that are as like, the one whose name comes first.
        let most = common.iter().map(share).max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)));
        if let Some((share, like)) = most.filter(|(share, _)| *share >= self.limit) {
            return Some((like.clone(), share));
        }
        let number = self.pieces.len();
        self.pieces.push((name.to_owned(), bars.len()));
        for bar in bars {
            self.with.entry(bar).or_default().push(number);
        }
        None
    }
}

fn hash(bar: &String) -> u64 {
    let mut hasher = DefaultHasher::new();
    bar.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_most_of_its_bars_in_common_is_a_duplicate() {
        let piece = |bars: &[u32]| bars.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut bars = Bars::new(0.8);
        assert_eq!(bars.add("a", &piece(&[1, 2, 3, 4, 5, 5, 5])), None);
        assert_eq!(bars.add("other", &piece(&[1, 2, 3, 9, 10])), None);
        assert_eq!(bars.add("near", &piece(&[1, 2, 3, 4, 6])), Some(("a".to_owned(), 0.8)));
        assert_eq!(bars.add("part", &piece(&[4, 5])), Some(("a".to_owned(), 1.0)));
        assert_eq!(bars.add("part of the near", &piece(&[6, 7])), None);
        assert_eq!(bars.add("empty", &[]), None);
    }
}

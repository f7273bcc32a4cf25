//! Preferences between generated pieces, by how similar they are to reference pieces (the original's `RL/data.py` and
//! `clamp2/statistics.py`; NotaGen, section 3.3).
use crate::{Error, Result};
use tch::{Kind, Tensor};

/// Cosine similarity of each generated feature, (pieces, width), to the mean of the reference features,
/// (references, width): the CLaMP 2 score of each piece.
pub fn scores(reference: &Tensor, generated: &Tensor) -> Result<Vec<f64>> {
    check(reference, generated)?;
    // In float32, as the original's.
    let mean = reference.f_mean_dim(0, false, Kind::Float)?.f_to_kind(Kind::Double)?.f_unsqueeze(0)?;
    let scores = directions(generated)?.f_matmul(&directions(&mean)?.f_transpose(0, 1)?)?;
    Ok(Vec::try_from(scores.f_squeeze_dim(1)?)?)
}

/// For each generated feature the most similar reference: (index, cosine similarity).
pub fn nearest(reference: &Tensor, generated: &Tensor) -> Result<Vec<(usize, f64)>> {
    check(reference, generated)?;
    let table = directions(generated)?.f_matmul(&directions(reference)?.f_transpose(0, 1)?)?;
    let (value, index) = table.f_max_dim(1, false)?;
    let (value, index) = (Vec::<f64>::try_from(value)?, Vec::<i64>::try_from(index)?);
    Ok(index.into_iter().map(|index| index as usize).zip(value).collect())
}

/// The indices of `scores` from the highest to the lowest; equal ones keep their order.
pub fn ranking(scores: &[f64]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..scores.len()).collect();
    places.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    places
}

/// How many pieces the portion `select` of `pieces` is, rounded down.
pub fn portion(pieces: usize, select: f64) -> usize {
    (pieces as f64 * select) as usize
}

/// The average of scores, and their distribution.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Distribution {
    /// The original's "average CLaMP 2 score".
    pub average: f64,
    /// Standard deviation.
    pub deviation: f64,
    /// The scores below which 0, 5, 25, 50, 75, 95 and 100 % of the pieces lie, by linear interpolation.
    pub quantiles: [f64; 7],
    /// Pieces by score in `bins` of equal width.
    pub histogram: Histogram,
}

/// Counts in bins.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Histogram {
    /// The bins' edges, one more than there are counts.
    pub edges: Vec<f64>,
    /// Pieces from one edge to the next; the last bin includes its upper edge.
    pub counts: Vec<u64>,
}

/// The portions that [`Distribution::quantiles`] are of.
pub const QUANTILES: [f64; 7] = [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0];
const BINS: usize = 20;

impl Distribution {
    /// The distribution of at least one score.
    pub fn of(scores: &[f64]) -> Result<Distribution> {
        let mut sorted = scores.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(&lowest), Some(&highest)) = (sorted.first(), sorted.last()) else {
            return Err(Error::Config("no scores: there are no features".to_owned()));
        };
        let count = scores.len() as f64;
        let average = scores.iter().sum::<f64>() / count;
        let deviation = (scores.iter().map(|score| (score - average).powi(2)).sum::<f64>() / count).sqrt();
        let quantiles = QUANTILES.map(|portion| {
            let place = portion * (count - 1.0);
            let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            below + (above - below) * place.fract()
        });
        let width = (highest - lowest) / BINS as f64;
        let edges = (0..=BINS).map(|bin| lowest + width * bin as f64).collect();
        let mut counts = vec![0; BINS];
        for score in &sorted {
            let bin = if width > 0.0 { ((score - lowest) / width) as usize } else { 0 };
            counts[bin.min(BINS - 1)] += 1;
        }
        Ok(Distribution { average, deviation, quantiles, histogram: Histogram { edges, counts } })
    }
}

/// Features as unit vectors, in double precision. A feature of zeros stays zero: its similarities are 0.
fn directions(features: &Tensor) -> Result<Tensor> {
    let features = features.f_to_kind(Kind::Double)?;
    let norm = features.f_norm_scalaropt_dim(2.0, [1], true)?.f_clamp_min(f64::MIN_POSITIVE)?;
    Ok(features.f_div(&norm)?)
}

fn check(reference: &Tensor, generated: &Tensor) -> Result<()> {
    let wrong = |message: String| Err(Error::Config(message));
    let ((references, width), (pieces, other)) = (reference.size2()?, generated.size2()?);
    if references == 0 || pieces == 0 {
        let which = if references == 0 { "reference" } else { "generated" };
        return wrong(format!("there are no {which} features"));
    }
    if width != other {
        return wrong(format!(
            "reference features are {width} wide, generated ones {other}: they are of different weights"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[[f32; 2]]) -> Tensor {
        Tensor::from_slice(rows.as_flattened()).view([rows.len() as i64, 2])
    }

    #[test]
    fn scores_are_cosines_to_the_mean() {
        let found = scores(&rows(&[[2.0, 0.0], [0.0, 2.0]]), &rows(&[[3.0, 3.0], [5.0, 0.0], [-1.0, -1.0]])).unwrap();
        let expected = [1.0, 0.5_f64.sqrt(), -1.0];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
    }

    #[test]
    fn the_nearest_reference_is_found() {
        let found = nearest(&rows(&[[1.0, 0.0], [0.0, 1.0]]), &rows(&[[0.0, 9.0], [1.0, 0.1]])).unwrap();
        assert_eq!(found.iter().map(|found| found.0).collect::<Vec<_>>(), [1, 0]);
        assert!((found[0].1 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn equal_scores_keep_their_order() {
        assert_eq!(ranking(&[0.5, 0.7, 0.5, 0.7, 0.1]), [1, 3, 0, 2, 4]);
        assert_eq!((portion(30, 0.1), portion(9, 0.1), portion(29, 0.1)), (3, 0, 2));
    }

    #[test]
    fn a_distribution_counts_every_piece_once() {
        let scores: Vec<f64> = (0..=100).map(|i| f64::from(i) / 100.0).collect();
        let found = Distribution::of(&scores).unwrap();
        assert!((found.average - 0.5).abs() < 1e-12 && (found.quantiles[2] - 0.25).abs() < 1e-12);
        assert_eq!(found.histogram.counts.iter().sum::<u64>(), 101);
        assert_eq!(Distribution::of(&[0.3]).unwrap().histogram.counts[0], 1);
        assert!(Distribution::of(&[]).is_err());
    }

    #[test]
    fn features_of_other_weights_are_refused() {
        let error = scores(&rows(&[[1.0, 0.0]]), &Tensor::ones([3, 4], (Kind::Float, tch::Device::Cpu))).unwrap_err();
        assert!(error.to_string().contains("2 wide") && error.to_string().contains("4"), "{error}");
    }
}

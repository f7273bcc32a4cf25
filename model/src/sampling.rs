//! Drawing characters for a whole batch on the device, after PyPI's `samplings` as the original calls it
//! (`generate` and `safe_normalize_probs` in `inference/utils.py`): top-k, top-p, then temperature on what is left.
use crate::number::{Portion, Positive, within};
use crate::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use torch_ext::kernels::{DrawSettings, draw_row};

/// Added to every probability before each step, as the original does.
const EPSILON: f64 = 1e-12;

/// How characters are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Draw from the k likeliest characters; 0 is all.
    #[serde(deserialize_with = "within::<u64, _, _>")]
    #[schemars(with = "u64")]
    pub top_k: i64,
    /// Draw from the likeliest characters that together reach this probability.
    #[serde(deserialize_with = "within::<Portion, _, _>")]
    #[schemars(with = "Portion")]
    pub top_p: f64,
    /// Above 1 evens the probabilities out, below 1 sharpens them.
    #[serde(deserialize_with = "within::<Positive, _, _>")]
    #[schemars(with = "Positive")]
    pub temperature: f64,
}

impl Default for Sampling {
    /// The original's settings.
    fn default() -> Sampling {
        Sampling { top_k: 9, top_p: 0.9, temperature: 1.2 }
    }
}

impl Sampling {
    /// Always the most probable character.
    pub const GREEDY: Sampling = Sampling { top_k: 1, top_p: 1.0, temperature: 1.0 };

    /// Refuses settings without a meaning.
    pub fn check(&self) -> Result<()> {
        let Sampling { top_k, top_p, temperature } = *self;
        if top_k < 0 {
            return Err(Error::Invalid(format!("top_k is {top_k}: it must be 0 (keep all) or more")));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(Error::Invalid(format!("top_p is {top_p}: it must be above 0 and at most 1")));
        }
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(Error::Invalid(format!("temperature is {temperature}: it must be above 0")));
        }
        Ok(())
    }

    /// A row of [`DrawSettings`].
    pub(crate) fn row(&self) -> [f32; DrawSettings::COLUMNS as usize] {
        draw_row(self.top_k, self.top_p, self.temperature)
    }

    /// Logits (rows, characters) to the probabilities, float32, that characters are drawn with.
    pub fn distribution(&self, logits: &Tensor) -> Result<Tensor> {
        let p = normalise(&logits.f_softmax(-1, Kind::Float)?)?;
        let characters = p.size().last().copied().unwrap_or(0);
        // Each cut keeps the first of the sorted probabilities, so one sort serves both.
        let (mut p, order) = p.f_sort(-1, true)?;
        if self.top_k > 0 && self.top_k < characters {
            let _ = p.f_narrow(-1, self.top_k, characters - self.top_k)?.f_zero_()?;
            p = p.f_div(&total(&p)?)?;
        }
        p = normalise(&p)?;
        if self.top_p < 1.0 {
            let before = p.f_cumsum(-1, Kind::Float)?.f_narrow(-1, 0, characters - 1)?;
            let _ = p.f_narrow(-1, 1, characters - 1)?.f_masked_fill_(&before.f_gt(self.top_p)?, 0.0)?;
            p = p.f_div(&total(&p)?)?;
        }
        p = normalise(&p)?;
        if self.temperature != 1.0 {
            p = p.f_pow_tensor_scalar(1.0 / self.temperature)?;
        }
        p = p.f_div(&total(&p)?)?;
        // Back in the order of the characters: there a tie between two of them cannot move all that follows.
        Ok(p.f_empty_like()?.f_scatter_(-1, &order, &p)?)
    }

    /// Logits (rows, characters) and a number from [0, 1) for each row to a character for each row, int64.
    pub fn draw(&self, logits: &Tensor, uniform: &Tensor) -> Result<Tensor> {
        if self.top_k == 1 {
            return Ok(logits.f_argmax(-1, false)?);
        }
        let cumulative = self.distribution(logits)?.f_cumsum(-1, Kind::Float)?;
        let last = cumulative.size().last().copied().unwrap_or(1) - 1;
        let at = uniform.f_unsqueeze(-1)?.f_mul(&cumulative.f_narrow(-1, last, 1)?)?;
        let passed = cumulative.f_le_tensor(&at)?;
        Ok(passed.f_sum_dim_intlist(-1, false, Kind::Int64)?.f_clamp_max(last)?)
    }
}

/// The rows of a batch by how their characters are drawn.
pub(crate) struct Draws {
    /// Settings and the rows that have them; no numbers where these are all rows.
    groups: Vec<(Sampling, Option<Tensor>)>,
}

impl Draws {
    /// `sampling` has the settings of each row.
    pub(crate) fn new(sampling: &[Sampling], device: Device) -> Result<Draws> {
        let mut groups: Vec<(Sampling, Vec<i64>)> = Vec::new();
        for (row, sampling) in sampling.iter().enumerate() {
            match groups.iter_mut().find(|(known, _)| known == sampling) {
                Some((_, rows)) => rows.push(row as i64),
                None => groups.push((*sampling, vec![row as i64])),
            }
        }
        let all = groups.len() == 1;
        let upload = |rows: Vec<i64>| match all {
            true => Ok(None),
            false => Tensor::from_slice(&rows).f_to_device(device).map(Some),
        };
        let groups = groups.into_iter().map(|(sampling, rows)| Ok((sampling, upload(rows)?)));
        Ok(Draws { groups: groups.collect::<Result<_>>()? })
    }

    /// As [`Sampling::draw`], each row with its own settings.
    pub(crate) fn draw(&self, logits: &Tensor, uniform: &Tensor) -> Result<Tensor> {
        let mut drawn = Tensor::f_zeros(uniform.size(), (Kind::Int64, logits.device()))?;
        for (sampling, rows) in &self.groups {
            let Some(rows) = rows else { return sampling.draw(logits, uniform) };
            let of = |t: &Tensor| t.f_index_select(0, rows);
            let _ = drawn.f_index_copy_(0, rows, &sampling.draw(&of(logits)?, &of(uniform)?)?)?;
        }
        Ok(drawn)
    }
}

fn total(p: &Tensor) -> Result<Tensor> {
    Ok(p.f_sum_dim_intlist(-1, true, Kind::Float)?)
}

fn normalise(p: &Tensor) -> Result<Tensor> {
    let p = p.f_nan_to_num(0.0, None::<f64>, None::<f64>)?.f_clamp_min(0.0)?.f_add_scalar(EPSILON)?;
    Ok(p.f_div(&total(&p)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use torch_ext::kernels::draw;

    #[test]
    fn settings_without_a_meaning_are_refused() {
        let wrong = |top_k, top_p, temperature| Sampling { top_k, top_p, temperature }.check().is_err();
        assert!(wrong(-1, 0.9, 1.0) && wrong(9, 0.0, 1.0) && wrong(9, 1.1, 1.0));
        assert!(wrong(9, 0.9, 0.0) && wrong(9, 0.9, f64::NAN) && wrong(9, f64::NAN, 1.0));
        assert!(Sampling::default().check().is_ok() && Sampling::GREEDY.check().is_ok());
    }

    fn settings(sampling: &[Sampling], kind: Kind) -> DrawSettings {
        let rows: Vec<f32> = sampling.iter().flat_map(Sampling::row).collect();
        DrawSettings::new(&Tensor::from_slice(&rows).view([-1, DrawSettings::COLUMNS]), kind).unwrap()
    }

    #[test]
    fn a_row_that_is_not_a_number_still_draws() {
        let logits = Tensor::full([2, 128], f64::NAN, (Kind::Float, Device::Cpu));
        let uniform = Tensor::from_slice(&[0.0f32, 0.999_999_9]);
        let sampling = Sampling::default();
        let settings = settings(&[sampling; 2], Kind::Float);
        let recorded = draw(&logits, &uniform, &settings, &Tensor::from_slice(&[-1i64, -1])).unwrap();
        for drawn in [sampling.draw(&logits, &uniform).unwrap(), recorded] {
            assert!(Vec::<i64>::try_from(drawn).unwrap().iter().all(|&c| (0..128).contains(&c)));
        }
    }

    #[test]
    fn rows_of_all_kinds_have_the_originals_distributions_in_one_call() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sampling.safetensors");
        let golden: std::collections::HashMap<String, Tensor> =
            Tensor::read_safetensors(path).unwrap().into_iter().collect();
        let cases = golden["logits"].size()[0];
        let sampling: Vec<Sampling> = (0..cases)
            .map(|case| Sampling {
                top_k: golden["top_k"].int64_value(&[case]),
                top_p: golden["top_p"].double_value(&[case]),
                temperature: golden["temperature"].double_value(&[case]),
            })
            .collect();
        let weights = settings(&sampling, Kind::Float).weights(&golden["logits"]).unwrap();
        let all = &weights / weights.sum_dim_intlist(-1, true, Kind::Float);
        for case in 0..cases {
            let mut ours = all.get(case);
            let mut theirs = golden["probabilities"].get(case).to_kind(Kind::Float);
            if golden["ties"].int64_value(&[case]) == 1 {
                (ours, theirs) = (ours.sort(-1, true).0, theirs.sort(-1, true).0);
            }
            let difference = (ours - theirs).abs().max().double_value(&[]);
            assert!(difference < 2e-6, "case {case}, {:?}: {difference:e}", sampling[case as usize]);
        }
    }

    #[test]
    fn one_call_draws_what_each_row_draws_alone() {
        tch::manual_seed(3);
        let kinds = [
            Sampling::default(),
            Sampling::GREEDY,
            Sampling { top_k: 0, top_p: 1.0, temperature: 1.0 },
            Sampling { top_k: 200, top_p: 0.5, temperature: 3.0 },
            Sampling { top_k: 1, top_p: 0.1, temperature: 9.0 },
        ];
        let rows = 2000;
        let sampling: Vec<Sampling> = kinds.iter().copied().cycle().take(rows).collect();
        for kind in [Kind::Float, Kind::Half] {
            let logits = (Tensor::randn([rows as i64, 128], (Kind::Float, Device::Cpu)) * 3.0).to_kind(kind);
            let uniform = Tensor::rand([rows as i64], (Kind::Float, Device::Cpu));
            let fixed = Tensor::full([rows as i64], -1, (Kind::Int64, Device::Cpu));
            let _ = fixed.narrow(0, 7, 3).fill_(65);
            let one =
                Vec::<i64>::try_from(draw(&logits, &uniform, &settings(&sampling, kind), &fixed).unwrap()).unwrap();
            let each = Draws::new(&sampling, Device::Cpu).unwrap().draw(&logits, &uniform).unwrap();
            let mut each = Vec::<i64>::try_from(each).unwrap();
            each[7..10].fill(65);
            // In half precision equally probable characters may change places where top-k cuts.
            let different = one.iter().zip(&each).filter(|(a, b)| a != b).count();
            assert!(different <= if kind == Kind::Float { 0 } else { rows / 50 }, "{kind:?}: {different}");
        }
    }
}

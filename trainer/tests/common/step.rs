//! Two steps of a training with full contexts and full patches, their allocations counted.
use std::{error::Error, fmt, time::Instant};

use model::{Architecture, Batch, NotaGen, patches::Patches};
use tch::Device;
use torch_ext::Allocations;
use trainer::{
    Optimizer, Settings, language,
    memory::{Memory, Step},
    run_step,
};

/// What was counted, and what was expected.
pub struct Measured {
    how: Step,
    pub peak: u64,
    pub expected: Memory,
    seconds: f64,
}

impl Measured {
    pub fn ratio(&self) -> f64 {
        self.peak as f64 / self.expected.total() as f64
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let gb = |bytes: u64| bytes as f64 / 1e9;
        let Step { pieces, predicted, precision, checkpointing, dropout, .. } = self.how;
        write!(
            f,
            "{pieces} pieces, {predicted:?} predicted, {precision:?}, again {checkpointing}, dropout {dropout}: "
        )?;
        write!(
            f,
            "{:.4} GB counted, {:.4} GB expected, {:.3}; ",
            gb(self.peak),
            gb(self.expected.total()),
            self.ratio()
        )?;
        let Memory { weights, casts, activations, passing, .. } = self.expected;
        let [weights, casts, activations, passing] = [weights, casts, activations, passing].map(gb);
        write!(f, "weights {weights:.4}, casts {casts:.4}, activations {activations:.4}, passing {passing:.4}; ")?;
        write!(f, "{:.1} s a step", self.seconds)
    }
}

pub fn measure(allocations: &Allocations, sizes: &Architecture, how: &Step) -> Result<Measured, Box<dyn Error>> {
    let architecture = Architecture { dropout: if how.dropout { 0.1 } else { 0.0 }, ..sizes.clone() };
    let settings = Settings {
        precision: how.precision,
        learning_rate: 1e-5,
        batch_size: how.pieces as usize,
        accumulation_steps: 1,
        steps: Some(2),
        weight_decay: 0.01,
        max_grad_norm: Some(1.0),
        checkpoint_every: 100,
        keep_checkpoints: 1,
        log_every: 100,
        activation_checkpointing: how.checkpointing,
        optimizer_offload: how.offload,
        ..Settings::default()
    };
    let (before, _) = allocations.read();
    let model = NotaGen::new(&architecture, Device::Cpu, 1)?;
    let mut optimizer = Optimizer::new(&model, &settings);
    let rows = vec![&b"[V:1]abcdefgabcd"[..]; architecture.patch_length as usize];
    let pieces = vec![Patches::from_rows(architecture.patch_size as usize, &rows)?; how.pieces as usize];
    let mut seconds = 0.0;
    for number in 0..2 {
        let most = how.predicted.unwrap_or(u64::MAX) as usize;
        let length = architecture.patch_length as usize;
        let batch = Batch::of_targets(&pieces, architecture.patch_length, |p, place| p * (length - 1) + place <= most)?;
        let step = vec![language::part(&architecture, batch)];
        let begun = Instant::now();
        run_step(&settings, &mut optimizer, step, number, |batch, mode| language::loss(&model, batch, mode))?;
        seconds = begun.elapsed().as_secs_f64();
    }
    let (_, peak) = allocations.read();
    Ok(Measured { how: *how, peak: peak - before, expected: Memory::of(sizes, how), seconds })
}

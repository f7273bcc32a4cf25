//! M3 itself: the encoder of patches and the decoder of their characters (arXiv 2410.13267, section 3.2), after the
//! original's `M3Model` in `code/utils.py`.

use tch::{Device, Kind, Tensor};

use super::architecture::{TIED, TIED_TO};
use super::bert::Encoder;
use super::{M3Architecture, M3Batch};
use crate::architecture::VOCABULARY;
use crate::gpt2::{Builder, Decoder, Mode};
use crate::notagen::{Loss, copy_weights, state_dict};
use crate::{Error, Result};

/// In every file, and never used: BERT's token embedding and its pooler.
pub const UNUSED_PARAMETERS: [&str; 3] = [
    "encoder.base.embeddings.word_embeddings.weight",
    "encoder.base.pooler.dense.weight",
    "encoder.base.pooler.dense.bias",
];

/// The network with its parameters, named as in the original's state dict.
pub struct M3 {
    architecture: M3Architecture,
    device: Device,
    parameters: Vec<(String, Tensor)>,
    encoder: Encoder,
    decoder: Decoder,
}

impl M3 {
    /// A new network, initialised as the original's from `seed`. The same on every device.
    pub fn new(architecture: &M3Architecture, device: Device, seed: u64) -> Result<M3> {
        M3::build(architecture, device, Some(seed))
    }

    /// A network for [`M3::load`]: its weights are uninitialised until then.
    pub fn blank(architecture: &M3Architecture, device: Device) -> Result<M3> {
        M3::build(architecture, device, None)
    }

    fn build(architecture: &M3Architecture, device: Device, seed: Option<u64>) -> Result<M3> {
        let a = architecture;
        a.check().map_err(|error| Error::Invalid(error.to_string()))?;
        let mut b = Builder::new(device, seed);
        let encoder = Encoder::new(&mut |name, shape, init| b.tensor(name, shape, init), "encoder", a)?;
        let (name, layers) = ("decoder.base.transformer", a.token_layers);
        let mut decoder = Decoder::new(&mut b, name, VOCABULARY, a.patch_size, layers, a.hidden_size, a.dropout)?;
        decoder.first_block = a.patch_layers;
        Ok(M3 { architecture: a.clone(), device, parameters: b.tensors, encoder, decoder })
    }

    /// Its sizes.
    pub fn architecture(&self) -> &M3Architecture {
        &self.architecture
    }

    /// Where its parameters are.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Names and tensors in the order of PyTorch's `model.parameters()`, the tied output embedding once.
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// Names and tensors in the order of PyTorch's `model.state_dict()`, the tied output embedding under both names.
    pub fn state_dict(&self) -> Vec<(String, Tensor)> {
        state_dict(&self.parameters, TIED, TIED_TO)
    }

    /// Copies weights in: `get` gives the tensor of a name, or nothing where the file has none.
    pub fn load<E: From<Error>>(
        &self,
        get: impl FnMut(&str) -> std::result::Result<Option<Tensor>, E>,
    ) -> std::result::Result<(), E> {
        copy_weights(&self.parameters, get)
    }

    /// The negative log-probability of the selected patches' characters, in float32 whatever the autocast type.
    pub fn loss(&self, batch: &M3Batch, mode: Mode) -> Result<Loss> {
        let encoded = self.encoder.forward(&batch.runs, mode)?;
        let features = Tensor::f_embedding(&encoded, &batch.selected, -1, false, false)?;
        let wte = &self.decoder.wte;
        let table = Tensor::f_cat(&[wte.shallow_clone(), features.f_to_kind(wte.kind())?], 0)?;
        let embedded = Tensor::f_embedding(&table, &batch.char_rows, -1, false, false)?;
        let decoded = self.decoder.forward(&embedded, &batch.char_position, &batch.char_sequences, mode)?;
        let logits = decoded.f_linear::<&Tensor>(wte, None)?.f_narrow(0, 0, batch.labels.size()[0])?;
        let logits = logits.f_to_kind(Kind::Float)?;
        let sum = logits.f_cross_entropy_loss::<Tensor>(&batch.labels, None, tch::Reduction::Sum, -100, 0.0)?;
        Ok(Loss { sum, tokens: batch.tokens })
    }
}

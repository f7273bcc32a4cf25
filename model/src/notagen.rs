//! NotaGen: a patch-level and a character-level GPT-2 (Wang et al. 2025, arXiv 2502.18008, section 3.1), after the
//! original's `pretrain/utils.py` (`PatchLevelDecoder`, `CharLevelDecoder`, `NotaGenLMHeadModel`).
use crate::architecture::{TIED, TIED_TO, VOCABULARY};
use crate::gpt2::{Builder, Decoder, Init, Mode};
use crate::{Architecture, Batch, Error, Result};
use tch::{Device, Kind, Tensor};

/// GPT-2's token embedding in the patch decoder: in every file, and never used (the original feeds embeddings).
pub const UNUSED_PARAMETER: &str = "patch_level_decoder.base.wte.weight";

/// The network with its parameters, named as in the original's state dict.
pub struct NotaGen {
    architecture: Architecture,
    device: Device,
    parameters: Vec<(String, Tensor)>,
    /// (hidden, patch size * 128): a linear layer over one-hot characters.
    pub(crate) patch_embedding: (Tensor, Tensor),
    pub(crate) patch_decoder: Decoder,
    pub(crate) char_decoder: Decoder,
}

/// The loss of a batch in nats.
#[derive(Debug)]
pub struct Loss {
    /// Negative log-probability, summed over the characters: a float32 scalar.
    pub sum: Tensor,
    /// Characters.
    pub tokens: i64,
}

impl Loss {
    /// The mean over the characters: the original's loss.
    pub fn mean(&self) -> Result<Tensor> {
        Ok(self.sum.f_div_scalar(self.tokens)?)
    }
}

impl NotaGen {
    /// A new network, initialised as the original's from `seed`. The same on every device.
    pub fn new(architecture: &Architecture, device: Device, seed: u64) -> Result<NotaGen> {
        NotaGen::build(architecture, device, Some(seed))
    }

    /// A network for [`NotaGen::load`]: its weights are uninitialised until then.
    pub fn blank(architecture: &Architecture, device: Device) -> Result<NotaGen> {
        NotaGen::build(architecture, device, None)
    }

    fn build(architecture: &Architecture, device: Device, seed: Option<u64>) -> Result<NotaGen> {
        let a = architecture;
        let mut b = Builder::new(device, seed);
        let inputs = a.patch_size * VOCABULARY;
        let patch_embedding = (
            b.tensor(
                "patch_level_decoder.patch_embedding.weight".into(),
                &[a.hidden_size, inputs],
                Init::Normal(0.02),
            )?,
            b.tensor(
                "patch_level_decoder.patch_embedding.bias".into(),
                &[a.hidden_size],
                Init::Uniform((inputs as f64).powf(-0.5)),
            )?,
        );
        let (patch_name, char_name) = ("patch_level_decoder.base", "char_level_decoder.base.transformer");
        let (hidden, dropout) = (a.hidden_size, a.dropout);
        let patch_decoder = Decoder::new(&mut b, patch_name, 1, a.patch_length, a.patch_layers, hidden, dropout)?;
        let mut char_decoder =
            Decoder::new(&mut b, char_name, VOCABULARY, a.patch_size + 1, a.char_layers, hidden, dropout)?;
        char_decoder.first_block = a.patch_layers;
        Ok(NotaGen {
            architecture: a.clone(),
            device,
            parameters: b.tensors,
            patch_embedding,
            patch_decoder,
            char_decoder,
        })
    }

    /// Its sizes.
    pub fn architecture(&self) -> &Architecture {
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

    /// The logits of every predicted character, (tokens, 128), in the order of [`Batch::order`].
    pub fn logits(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        let embedded = embed_patches(&self.patch_embedding, &batch.patch_rows)?;
        let encoded = self.patch_decoder.forward(&embedded, &batch.patch_position, &batch.patch_sequences, mode)?;
        let encoded = Tensor::f_embedding(&encoded, &batch.source, -1, false, false)?;
        let wte = &self.char_decoder.wte;
        let table = Tensor::f_cat(&[wte.shallow_clone(), encoded.f_to_kind(wte.kind())?], 0)?;
        let embedded = Tensor::f_embedding(&table, &batch.char_rows, -1, false, false)?;
        let decoded = self.char_decoder.forward(&embedded, &batch.char_position, &batch.char_sequences, mode)?;
        Ok(decoded.f_linear::<&Tensor>(wte, None)?.f_narrow(0, 0, batch.tokens)?)
    }

    /// The negative log-probability of the batch's characters, in float32 whatever the autocast type.
    pub fn loss(&self, batch: &Batch, mode: Mode) -> Result<Loss> {
        let logits = self.logits(batch, mode)?.f_to_kind(Kind::Float)?;
        let sum = logits.f_cross_entropy_loss::<Tensor>(&batch.labels, None, tch::Reduction::Sum, -100, 0.0)?;
        Ok(Loss { sum, tokens: batch.tokens })
    }

    /// The log-probability of each piece in nats, (pieces) in float32: the sum over the characters of all patches but
    /// the first. Added up in float64, since thousands of float32 additions in a row would lose what DPO compares.
    pub fn log_probability(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        let logits = self.logits(batch, mode)?.f_to_kind(Kind::Float)?;
        let token =
            logits.f_log_softmax(-1, Kind::Float)?.f_gather(1, &batch.labels.f_unsqueeze(1)?, false)?.f_squeeze()?;
        let token = token.f_view([batch.tokens])?.f_to_kind(Kind::Double)?;
        let zeros = Tensor::f_zeros([batch.pieces], (Kind::Double, token.device()))?;
        Ok(zeros.f_index_add(0, &batch.token_piece, &token)?.f_to_kind(Kind::Float)?)
    }
}

/// A state dict of parameters, in which `tied` is another name of `tied_to`, the last.
pub(crate) fn state_dict(parameters: &[(String, Tensor)], tied: &str, tied_to: &str) -> Vec<(String, Tensor)> {
    let detached = |t: &Tensor| t.f_detach().unwrap_or_else(|_| t.shallow_clone());
    let mut state: Vec<_> = parameters.iter().map(|(name, t)| (name.clone(), detached(t))).collect();
    if let Some(tensor) = state.iter().find(|(name, _)| name == tied_to).map(|(_, t)| t.shallow_clone()) {
        state.push((tied.to_owned(), tensor));
    }
    state
}

/// Copies weights into parameters.
pub(crate) fn copy_weights<E: From<Error>>(
    parameters: &[(String, Tensor)],
    mut get: impl FnMut(&str) -> std::result::Result<Option<Tensor>, E>,
) -> std::result::Result<(), E> {
    let _no_grad = tch::no_grad_guard();
    for (name, parameter) in parameters {
        let tensor = get(name)?.ok_or_else(|| Error::Missing(name.clone()))?;
        if tensor.size() != parameter.size() {
            let (expected, found) = (parameter.size(), tensor.size());
            return Err(Error::Shape { what: name.clone(), expected, found }.into());
        }
        parameter.shallow_clone().f_copy_(&tensor).map_err(Error::from)?;
    }
    Ok(())
}

/// One-hot characters times a matrix is the sum of one row a character: (patches, patch size) row numbers to
/// (patches, hidden).
pub(crate) fn embed_patches(embedding: &(Tensor, Tensor), rows: &Tensor) -> Result<Tensor> {
    let (weight, bias) = embedding;
    let (patches, size) = rows.size2()?;
    let table = weight.f_transpose(0, 1)?.f_contiguous()?;
    let offsets = Tensor::f_arange_start_step(0, patches * size, size, (Kind::Int64, rows.device()))?;
    let flat = rows.f_reshape([-1])?;
    let (sum, ..) = Tensor::f_embedding_bag::<Tensor>(&table, &flat, &offsets, false, 0, false, None, false)?;
    Ok(sum.f_add(bias)?)
}

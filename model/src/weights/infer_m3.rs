//! Reads the sizes of an M3, or of CLaMP 2's music encoder, from the shapes of its tensors.

use super::infer::{compare, layers, matrix, misshapen};
use super::kind::{WeightsKind, kind_of};
use super::{Error, StateDict};
use crate::architecture::VOCABULARY;
use crate::m3::M3Architecture;

/// The sizes of the music encoder in a file of M3 or CLaMP 2, and what its tensors' names begin with. Every tensor of
/// the encoder, and of M3's decoder, has to be there with its shape, and no other, and CLaMP 2's projection of music;
/// `token_layers` of CLaMP 2 is 0, its model of texts is not looked at. Dropout is not in the file: it is the original's.
pub fn m3_architecture(state: &StateDict) -> Result<(M3Architecture, &'static str), Error> {
    let (network, prefix) = match kind_of(state) {
        Some(WeightsKind::M3) => ("M3", "encoder"),
        Some(WeightsKind::Clamp2) => ("CLaMP 2's music encoder", "music_model"),
        other => {
            let kind = other.map_or("another network", WeightsKind::description).into();
            return Err(Error::NotMusic { path: state.path().to_path_buf(), kind, wanted: "CLaMP 2 or M3" });
        }
    };
    let name = format!("{prefix}.patch_embedding.weight");
    let embedding = matrix(state, &name)?;
    if embedding[1] % VOCABULARY != 0 {
        return Err(misshapen(
            state,
            &name,
            &embedding,
            vec![embedding[0], M3Architecture::default().patch_size * VOCABULARY],
        ));
    }
    let positions = matrix(state, &format!("{prefix}.base.embeddings.position_embeddings.weight"))?;
    let is_m3 = prefix == "encoder";
    let token_layers = if is_m3 { layers(state, "decoder.base.transformer.h.", "ln_1.weight")? } else { 0 };
    let architecture = M3Architecture {
        patch_size: embedding[1] / VOCABULARY,
        patch_length: positions[0],
        patch_layers: layers(state, &format!("{prefix}.base.encoder.layer."), "attention.self.query.weight")?,
        token_layers,
        hidden_size: embedding[0],
        ..M3Architecture::default()
    };
    let checked = M3Architecture { token_layers: token_layers.max(1), ..architecture.clone() }.check();
    checked.map_err(|source| Error::Architecture { path: state.path().to_path_buf(), source })?;
    if is_m3 {
        let tied = (crate::m3::TIED.to_owned(), vec![VOCABULARY, architecture.hidden_size]);
        compare(state, network, architecture.parameters(), Some(tied), |_| true)?;
    } else {
        let of_encoder = |name: &str| name.starts_with("music_model.");
        let width = matrix(state, "music_proj.weight")?[0];
        let mut expected = architecture.encoder_parameters(prefix);
        expected.push(("music_proj.weight".to_owned(), vec![width, architecture.hidden_size]));
        expected.push(("music_proj.bias".to_owned(), vec![width]));
        compare(state, network, expected, None, of_encoder)?;
    }
    Ok((architecture, prefix))
}

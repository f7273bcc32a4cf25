//! What the originals publish, and where: a catalogue for `weights fetch`, told to whoever lacks one of the files.
use std::fmt;
use std::path::Path;

use model::Architecture;
use model::m3::M3Architecture;

use crate::common::failure::{Failure, Result};
use crate::common::nearest;
use crate::hub::reference::Reference;

/// A released weights file.
#[derive(Debug)]
pub struct Released {
    /// What it is called here.
    pub name: &'static str,
    pub file: &'static str,
    /// The Hugging Face repository that holds it.
    pub repository: &'static str,
    pub network: NetworkKind,
    pub purpose: &'static str,
}

/// A network with its sizes.
#[derive(Debug, Clone, Copy)]
pub enum NetworkKind {
    NotaGen(fn() -> Architecture),
    M3,
    Clamp2,
}

/// The account was called ElectricOnes when the repository was new; the hub leads from there to here.
const NOTAGEN: &str = "ElectricAlexis/NotaGen";
const CLAMP2: &str = "sander-wood/clamp2";

pub const WEIGHTS: &[Released] = &[
    Released {
        name: "notagen-small",
        file: "weights_notagen_pretrain_p_size_16_p_length_2048_p_layers_12_c_layers_3_h_size_768_lr_0.0002_batch_8.pth",
        repository: NOTAGEN,
        network: NetworkKind::NotaGen(Architecture::small),
        purpose: "pre-trained: to fine-tune, the smallest",
    },
    Released {
        name: "notagen-medium",
        file: "weights_notagen_pretrain_p_size_16_p_length_2048_p_layers_16_c_layers_3_h_size_1024_lr_0.0001_batch_4.pth",
        repository: NOTAGEN,
        network: NetworkKind::NotaGen(Architecture::medium),
        purpose: "pre-trained: to fine-tune",
    },
    Released {
        name: "notagen-large",
        file: "weights_notagen_pretrain_p_size_16_p_length_1024_p_layers_20_c_layers_6_h_size_1280_lr_0.0001_batch_4.pth",
        repository: NOTAGEN,
        network: NetworkKind::NotaGen(Architecture::large),
        purpose: "pre-trained: to fine-tune, the paper's",
    },
    Released {
        name: "notagen-finetuned",
        file: "weights_notagen_pretrain-finetune_p_size_16_p_length_1024_p_layers_c_layers_6_20_h_size_1280_lr_1e-05_batch_1.pth",
        repository: NOTAGEN,
        network: NetworkKind::NotaGen(Architecture::large),
        purpose: "fine-tuned on classical pieces: to start CLaMP-DPO from",
    },
    Released {
        name: "notagen-rl3",
        file: "weights_notagen_pretrain-finetune-RL3_beta_0.1_lambda_10_p_size_16_p_length_1024_p_layers_20_c_layers_6_h_size_1280_lr_1e-06_batch_1.pth",
        repository: NOTAGEN,
        network: NetworkKind::NotaGen(Architecture::large),
        purpose: "after three rounds of CLaMP-DPO: the paper's music",
    },
    Released {
        name: "notagen-x",
        file: "weights_notagenx_p_size_16_p_length_1024_p_layers_20_h_size_1280.pth",
        repository: NOTAGEN,
        network: NetworkKind::NotaGen(Architecture::large),
        purpose: "NotaGen-X: the best music",
    },
    Released {
        name: "clamp2",
        file: "weights_clamp2_h_size_768_lr_5e-05_batch_128_scale_1_t_length_128_t_model_FacebookAI_xlm-roberta-base_t_dropout_True_m3_True.pth",
        repository: CLAMP2,
        network: NetworkKind::Clamp2,
        purpose: "CLaMP 2: the judge of CLaMP-DPO, features of music",
    },
    Released {
        name: "m3",
        file: "weights_m3_p_size_64_p_length_512_t_layers_3_p_layers_12_h_size_768_lr_0.0001_batch_16_mask_0.45.pth",
        repository: CLAMP2,
        network: NetworkKind::M3,
        purpose: "M3, CLaMP 2's music encoder before it met text",
    },
];

impl Released {
    pub fn reference(&self) -> Reference {
        Reference::new(self.repository, self.file)
    }
}

impl NetworkKind {
    /// What `weights inspect` calls it.
    pub fn kind(self) -> &'static str {
        match self {
            NetworkKind::NotaGen(_) => "notagen",
            NetworkKind::M3 => "m3",
            NetworkKind::Clamp2 => "clamp2",
        }
    }

    /// Its sizes, as `weights inspect` names them. CLaMP 2 has no decoder.
    pub fn sizes(self) -> [(&'static str, Option<i64>); 5] {
        let (patch_size, patch_length, patch_layers, char_layers, hidden_size) = match self {
            NetworkKind::NotaGen(sizes) => {
                let a = sizes();
                (a.patch_size, a.patch_length, a.patch_layers, Some(a.char_layers), a.hidden_size)
            }
            NetworkKind::M3 | NetworkKind::Clamp2 => {
                let a = M3Architecture::default();
                let decoder = matches!(self, NetworkKind::M3).then_some(a.token_layers);
                (a.patch_size, a.patch_length, a.patch_layers, decoder, a.hidden_size)
            }
        };
        [
            ("patch_size", Some(patch_size)),
            ("patch_length", Some(patch_length)),
            ("patch_layers", Some(patch_layers)),
            ("char_layers", char_layers),
            ("hidden_size", Some(hidden_size)),
        ]
    }
}

impl fmt::Display for NetworkKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [_, (_, length), (_, layers), (_, characters), (_, hidden)] =
            self.sizes().map(|(key, size)| (key, size.unwrap_or(0)));
        let decoder = if characters == 0 { String::new() } else { format!(" + {characters}") };
        write!(f, "{layers}{decoder} layers of {hidden}, {length} patches")
    }
}

const SCHUBERT: &str = "https://drive.google.com/drive/folders/1iVLkcywzXGcHFodce9nDQyEmK4UDmBtY?usp=sharing";

/// What a word of the command line asks for: a name of the catalogue, a file name of it, or `hf://owner/repo/file`.
///
/// # Errors
/// It is none of these.
pub fn find(word: &str) -> Result<Reference> {
    if let Some(reference) = Reference::parse(word) {
        return reference.map_err(Failure::usage);
    }
    let found = WEIGHTS.iter().find(|released| released.name == word || released.file == word);
    found.map(Released::reference).ok_or_else(|| {
        let names = nearest::hint(word, WEIGHTS.iter().map(|released| released.name));
        Failure::usage(format!("no weights called `{word}` are published"))
            .hint(format!("{names}; or hf://owner/repo/file"))
    })
}

/// The entry of a file of this name.
pub fn named(path: &Path) -> Option<&'static Released> {
    let name = path.file_name()?.to_str()?;
    WEIGHTS.iter().find(|released| released.file == name)
}

/// Whether the originals publish a weights file of this name: such a file is never overwritten.
pub fn is_released(path: &Path) -> bool {
    named(path).is_some()
}

/// The repositories of the catalogue.
pub fn repositories() -> [&'static str; 2] {
    [NOTAGEN, CLAMP2]
}

/// Whether these weights know the published prompts (period, composer, instrumentation): NotaGen-X was trained on them.
pub fn knows_prompts(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("weights_notagenx_"))
}

/// How to come by a missing file, if the originals publish it.
pub fn where_to_get(path: &Path) -> Option<String> {
    if let Some(released) = named(path) {
        let (name, page) = (released.name, released.reference().page());
        return Some(format!("`notagen-train weights fetch {name}`, or put it at {} ({page})", path.display()));
    }
    let text = path.to_string_lossy();
    if path.starts_with("data/schubert_scores") {
        return Some(format!(
            "the scores are OpenScore's Lieder (https://github.com/OpenScore/Lieder) as standard ABC, put them in {text}; \
             or take the original's, preprocessed, from {SCHUBERT} into data/ and start after this stage (--from)"
        ));
    }
    if text.starts_with("data/schubert_") {
        return Some(format!("published at {SCHUBERT}; put it at {text}"));
    }
    for corpus in ["pretrain", "finetune"] {
        if path.starts_with(format!("data/{corpus}_scores")) {
            return Some(format!(
                "the originals do not publish these scores: put MusicXML or standard ABC of your own in {text}"
            ));
        }
        if text.starts_with(&format!("data/{corpus}_")) {
            return Some(format!(
                "the originals do not publish {text}: recipes/{corpus}-large.yaml, with --only preprocess, makes it of \
                 MusicXML or standard ABC of your own in data/{corpus}_scores"
            ));
        }
    }
    if text.starts_with("data/quickstart") {
        return Some("scripts/notagen-train fetches this corpus (scripts/corpus)".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cells of the page's tables whose first one is a name of the catalogue.
    fn rows() -> Vec<Vec<String>> {
        let page = include_str!("../../../checkpoints/README.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
        rows.map(|row| row.split(" | ").map(|cell| cell.replace('`', "").trim().to_owned()).collect()).collect()
    }

    #[test]
    fn the_page_of_the_weights_lists_the_catalogue() {
        let catalogue: Vec<Vec<String>> = WEIGHTS
            .iter()
            .map(|released| {
                let sizes = released.network.to_string();
                vec![released.name.to_owned(), sizes, released.purpose.to_owned(), released.file.to_owned()]
            })
            .collect();
        assert_eq!(rows(), catalogue);
        let page = include_str!("../../../checkpoints/README.md");
        for repository in repositories() {
            assert!(page.contains(&format!("https://huggingface.co/{repository}`")), "{repository}");
        }
    }

    #[test]
    fn the_names_of_the_files_say_what_the_networks_are() {
        for released in WEIGHTS {
            if let NetworkKind::NotaGen(sizes) = released.network {
                model::weights::check_name(Path::new(released.file), &sizes()).unwrap();
            }
        }
    }

    #[test]
    fn weights_are_found_by_name_by_file_and_by_address() {
        for released in WEIGHTS {
            for word in [released.name, released.file, &released.reference().to_string()] {
                assert_eq!(find(word).unwrap(), released.reference());
            }
        }
        let failure = find("notagenx").unwrap_err();
        assert!(failure.hint_text().is_some_and(|hint| hint.contains("did you mean `notagen-x`?")), "{failure}");
        assert!(find("hf://a/b").is_err());
    }
}

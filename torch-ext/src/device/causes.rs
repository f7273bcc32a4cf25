//! Why a card cannot be used, asked of a driver that the test compiles, in a process of its own for each case: whether there
//! is a driver counts from the start of a process.
use super::*;
use std::fs;
use std::process::Command;

/// The driver's functions that are used here. It answers what the environment says.
const DRIVER: &str = r#"
#include <stdio.h>
#include <stdlib.h>
static int number(const char* name, int otherwise) {
  const char* text = getenv(name);
  return text ? atoi(text) : otherwise;
}
int cuDriverGetVersion(int* version) { *version = number("FAKE_VERSION", 13000); return 0; }
int cuInit(unsigned flags) { return number("FAKE_INIT", 0); }
int cuDeviceGet(int* device, int index) { *device = index; return index < number("FAKE_COUNT", 1) ? 0 : 101; }
int cuDeviceGetName(char* name, int size, int device) { snprintf(name, size, "Card %d", device); return 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int device) { *bytes = (size_t)80 << 30; return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  *value = attribute == 75 ? 9 : attribute == 76 ? 1 : -1;
  return 0;
}
"#;

/// A folder with a driver and one for device files.
struct Machine {
    folder: PathBuf,
}

impl Machine {
    /// With these device files, and with a driver that the C compiler makes of `source`.
    fn new(name: &str, files: &[&str], source: Option<&str>) -> Machine {
        let folder = std::env::temp_dir().join(format!("causes-{name}-{}", std::process::id()));
        fs::create_dir_all(folder.join("dev")).unwrap();
        for file in files {
            fs::write(folder.join("dev").join(file), "").unwrap();
        }
        if let Some(source) = source {
            fs::write(folder.join("driver.c"), source).unwrap();
            let mut compiler = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
            compiler.args(["-shared", "-fPIC", "-o"]).arg(folder.join("libcuda.so.1")).arg(folder.join("driver.c"));
            assert!(compiler.status().unwrap().success());
        }
        Machine { folder }
    }

    /// What `load_cuda` and `card(0)` answer there.
    fn ask(&self, environment: &[(&str, &str)]) -> [String; 2] {
        let libraries = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "device::causes::asked_in_a_process_of_its_own", "--ignored", "--nocapture"])
            .env("LD_LIBRARY_PATH", format!("{}:{libraries}", self.folder.display()))
            .env("DEVICE_FILES", self.folder.join("dev"))
            .env_remove("CUDA_VISIBLE_DEVICES")
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ["load_cuda: ", "card: "].map(|name| {
            let answer = text.lines().find_map(|line| Some(line.split_once(name)?.1));
            answer.unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr))).to_owned()
        })
    }

    fn load_cuda(&self, environment: &[(&str, &str)]) -> String {
        let [answer, _] = self.ask(environment);
        answer
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
#[ignore = "the other tests start it"]
fn asked_in_a_process_of_its_own() {
    let text = |answer: std::result::Result<String, Error>| answer.unwrap_or_else(|error| error.to_string());
    let dev = PathBuf::from(std::env::var_os("DEVICE_FILES").unwrap());
    println!("\nload_cuda: {}", text(load_cuda_of(&dev).map(|usable| usable.to_string())));
    println!("card: {}", text(card(0).map(|card| format!("{card:?}"))));
}

#[test]
fn a_card_is_described_by_the_driver_alone() {
    let machine = Machine::new("card", &[], Some(DRIVER));
    let [usable, card] = machine.ask(&[]);
    assert_eq!(usable, "false", "without device files");
    assert_eq!(card, r#"Card { name: "Card 0", memory: 85899345920, capability: (9, 1) }"#);
    let [_, card] = machine.ask(&[("FAKE_COUNT", "0")]);
    assert_eq!(card, "the NVIDIA driver does not tell about card 0: error 101 of cuDeviceGet");
    let [_, card] = machine.ask(&[("FAKE_INIT", "100")]);
    assert_eq!(card, "the NVIDIA driver does not tell about card 0: error 100 of cuInit");
}

#[test]
fn a_driver_that_finds_no_card_although_its_file_is_there() {
    let machine = Machine::new("hidden", &["nvidia0", "nvidiactl"], Some(DRIVER));
    let [usable, _] = machine.ask(&[("FAKE_INIT", "100")]);
    let file = machine.folder.join("dev/nvidia0");
    let starts = format!("the NVIDIA driver finds no card although {} is there", file.display());
    assert!(usable.starts_with(&starts), "{usable}");
    assert_eq!(machine.load_cuda(&[("FAKE_INIT", "100"), ("CUDA_VISIBLE_DEVICES", "-1")]), "false");
    assert_eq!(
        machine.load_cuda(&[("FAKE_INIT", "802")]),
        "the NVIDIA driver does not start: error 802 of cuInit (nvidia-smi may say more)"
    );

    // Root opens any file, and a folder no one.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let usable = machine.load_cuda(&[("FAKE_INIT", "100")]);
    assert!(usable.starts_with(&format!("{} cannot be opened: ", file.display())), "{usable}");
}

#[test]
fn a_machine_without_a_card_has_none() {
    let machine = Machine::new("none", &["nvidiactl"], Some(DRIVER));
    assert_eq!(machine.load_cuda(&[("FAKE_INIT", "100")]), "false");
    // WSL2: the driver alone tells whose card it is.
    let machine = Machine::new("wsl", &["dxg"], Some(DRIVER));
    assert_eq!(machine.load_cuda(&[("FAKE_INIT", "100")]), "false");
    assert_ne!(machine.load_cuda(&[]), "false");
}

#[test]
fn a_library_that_is_no_driver() {
    let machine = Machine::new("empty", &["nvidia0"], Some("int nothing;"));
    let [usable, card] = machine.ask(&[]);
    assert_eq!(usable, "libcuda.so.1 is not a CUDA driver");
    assert_eq!(card, "the NVIDIA driver does not tell about card 0: libcuda.so.1 has no cuInit");
    // No library at all, where this machine has none of its own.
    if find_driver().is_err() {
        let machine = Machine::new("nothing", &["nvidia0"], None);
        for answer in machine.ask(&[]) {
            assert!(answer.starts_with("the NVIDIA driver's library is missing: libcuda.so.1"), "{answer}");
        }
    }
}

/// The driver and its card answer, and what is missing is on this program's side.
#[test]
fn a_card_that_answers_and_cannot_be_used() {
    let machine = Machine::new("built", &["nvidia0", "nvidiactl"], Some(DRIVER));
    let (usable, old) = (machine.load_cuda(&[]), machine.load_cuda(&[("FAKE_VERSION", "12040")]));
    match cuda_part_file() {
        Err(_) => {
            assert!(usable.starts_with("this program was built without its CUDA part"), "{usable}");
            assert_eq!(old, usable);
        }
        // libtorch asks the driver for more than the one here has.
        Ok(_) => {
            assert_eq!(
                usable,
                "libtorch cannot use the card of the NVIDIA driver, Card 0 (nvidia-smi shows its state)"
            );
            assert!(old.starts_with("the NVIDIA driver is too old: it has CUDA 12.4, and libtorch needs 13."), "{old}");
        }
    }
}

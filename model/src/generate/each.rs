//! The round of a CPU, slot after slot: nothing is read in vain, and the host sees every character.
use super::network::{InferenceNetwork, Ready};
use crate::Result;
use crate::patches::EOS;
use crate::sampling::{Draws, Sampling};
use tch::Tensor;

/// Whether there is no end mark yet behind the given characters.
fn goes_on(given: &[u8], written: &[u8]) -> bool {
    !written[given.len().min(written.len())..].contains(&EOS)
}

impl InferenceNetwork {
    /// All characters of the next patches, those given included. Ended patches leave the batch once a quarter of it
    /// has ended.
    pub(super) fn write_each(&mut self, ready: &[Ready]) -> Result<Vec<Vec<u8>>> {
        let size = self.architecture.patch_size;
        let slots: Vec<i64> = ready.iter().map(|ready| ready.slot as i64).collect();
        let uniform: Vec<f32> = ready.iter().flat_map(|ready| ready.uniform.iter().copied()).collect();
        // -1 where a character is to be drawn.
        let fixed: Vec<i64> = ready.iter().flat_map(|ready| ready.fixed(size as usize)).collect();
        let given = ready.iter().map(|ready| ready.given.len()).max().unwrap_or(0) as i64;
        let upload = |tensor: Tensor| tensor.f_view([-1, size])?.f_to_device(self.device);
        let (mut uniform, mut fixed) = (upload(Tensor::from_slice(&uniform))?, upload(Tensor::from_slice(&fixed))?);
        let features = self.features.f_index_select(0, &Tensor::from_slice(&slots).f_to_device(self.device)?)?;
        let mut x = self.first(&features)?;
        self.check(x.shallow_clone())?;
        let drawn = |live: &[usize]| live.iter().map(|&row| ready[row].sampling).collect::<Vec<Sampling>>();
        let mut live: Vec<usize> = (0..ready.len()).collect();
        let mut draws = Draws::new(&drawn(&live), self.device)?;
        let mut written: Vec<Vec<u8>> = vec![Vec::with_capacity(size as usize); ready.len()];
        for place in 0..size {
            let logits = self.logits(x, place)?;
            let mut character = draws.draw(&logits, &uniform.f_select(1, place)?)?;
            if place < given {
                let fixed = fixed.f_select(1, place)?;
                character = fixed.f_where_self(&fixed.f_ge(0)?, &character)?;
            }
            for (row, &c) in live.iter().zip(&Vec::<i64>::try_from(&character)?) {
                written[*row].push(c as u8);
            }
            let going: Vec<i64> = (0..live.len() as i64)
                .filter(|&i| goes_on(&ready[live[i as usize]].given, &written[live[i as usize]]))
                .collect();
            if going.is_empty() || place + 1 == size {
                break;
            }
            if going.len() * 4 <= live.len() * 3 {
                live = going.iter().map(|&i| live[i as usize]).collect();
                draws = Draws::new(&drawn(&live), self.device)?;
                let going = Tensor::from_slice(&going).f_to_device(self.device)?;
                self.keep_rows(&going, place + 1)?;
                uniform = uniform.f_index_select(0, &going)?;
                fixed = fixed.f_index_select(0, &going)?;
                character = character.f_index_select(0, &going)?;
            }
            x = self.next(&character, place)?;
        }
        Ok(written)
    }

    /// Moves the character caches of these rows to the front.
    fn keep_rows(&mut self, rows: &Tensor, places: i64) -> Result<()> {
        let n = rows.size()[0];
        for cache in &self.character_caches {
            let kept = cache.f_narrow(3, 0, places)?.f_index_select(0, rows)?;
            cache.f_narrow(0, 0, n)?.f_narrow(3, 0, places)?.f_copy_(&kept)?;
        }
        Ok(())
    }
}

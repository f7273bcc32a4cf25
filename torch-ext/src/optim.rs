//! Kernels over lists of tensors: fused AdamW, gradient-scaler kernels, norm and clipping.
//! None of them waits for the device.
use crate::Result;
use crate::ffi::{
    Ptr, check, new_tensor, ptr, ptrs, te_clip_by_norm, te_fused_adamw, te_total_norm, te_unscale, te_update_scale,
    te_zero,
};
use tch::{Device, Kind, Tensor};

/// The state of AdamW, one entry a parameter, in the parameters' order (`torch.optim.AdamW(fused=True)`).
#[derive(Debug)]
pub struct AdamWState {
    /// Steps taken: float32 scalars.
    pub steps: Vec<Tensor>,
    /// First moments, shaped as the parameters.
    pub exp_avgs: Vec<Tensor>,
    /// Second moments, shaped as the parameters.
    pub exp_avg_sqs: Vec<Tensor>,
}

impl AdamWState {
    /// All zero, beside the parameters or on another device.
    pub fn new(params: &[Tensor], device: Option<Device>) -> AdamWState {
        let on = |p: &Tensor| (Kind::Float, device.unwrap_or(p.device()));
        let zeros = || params.iter().map(|p| Tensor::zeros(p.size(), on(p))).collect();
        AdamWState {
            steps: params.iter().map(|p| Tensor::zeros([], on(p))).collect(),
            exp_avgs: zeros(),
            exp_avg_sqs: zeros(),
        }
    }

    /// A parameter's step counter, first and second moment.
    pub fn of(&self, param: usize) -> [Tensor; 3] {
        [&self.steps, &self.exp_avgs, &self.exp_avg_sqs].map(|all| all[param].shallow_clone())
    }

    /// Frees a parameter's state.
    pub fn forget(&mut self, param: usize) {
        for all in [&mut self.steps, &mut self.exp_avgs, &mut self.exp_avg_sqs] {
            all[param] = Tensor::new();
        }
    }
}

/// The settings of one AdamW step.
#[derive(Debug, Clone, Copy)]
pub struct AdamWStep<'a> {
    /// Learning rate: one number on the parameters' device, float32 on a CUDA device.
    pub lr: &'a Tensor,
    /// Decay rates of the moments.
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// 1 where a gradient is not finite, and 0 else: a float32 scalar on the parameters' device. The step then changes
    /// nothing.
    pub found_inf: &'a Tensor,
}

fn same_length(what: &str, n: usize, len: usize) -> Result<()> {
    if n == len { Ok(()) } else { Err(error!(Argument, "{len} {what} for {n} parameters")) }
}

/// One AdamW step over all parameters in one call. Where the state is on another device, the step runs there, parameter by
/// parameter, and waits for both devices.
///
/// `params` and `grads` have equal shapes, pair by pair. Errors where lengths or shapes differ.
pub fn fused_adamw(params: &[Tensor], grads: &[Tensor], state: &AdamWState, step: AdamWStep) -> Result<()> {
    let n = params.len();
    if n == 0 {
        return Ok(());
    }
    same_length("gradients", n, grads.len())?;
    same_length("step counters", n, state.steps.len())?;
    same_length("first moments", n, state.exp_avgs.len())?;
    same_length("second moments", n, state.exp_avg_sqs.len())?;
    for (i, p) in params.iter().enumerate() {
        for (what, t) in [("gradient", &grads[i]), ("moment", &state.exp_avgs[i]), ("moment", &state.exp_avg_sqs[i])] {
            if p.size() != t.size() {
                return Err(error!(Argument, "parameter {i} has shape {:?}, its {what} {:?}", p.size(), t.size()));
            }
        }
    }
    if state.exp_avgs.first().map(Tensor::device) != params.first().map(Tensor::device) {
        return elsewhere(params, grads, state, step);
    }
    // SAFETY: five arrays of n live tensors of equal shapes (checked above) and two live scalars.
    check(unsafe {
        te_fused_adamw(
            ptrs(params).as_ptr(),
            ptrs(grads).as_ptr(),
            ptrs(&state.exp_avgs).as_ptr(),
            ptrs(&state.exp_avg_sqs).as_ptr(),
            ptrs(&state.steps).as_ptr(),
            n,
            ptr(step.lr),
            step.betas.0,
            step.betas.1,
            step.weight_decay,
            step.eps,
            ptr(step.found_inf),
        )
    })
}

/// The step where the state is: a parameter and its gradient go there, and the parameter comes back.
fn elsewhere(params: &[Tensor], grads: &[Tensor], state: &AdamWState, step: AdamWStep) -> Result<()> {
    let _no_grad = tch::no_grad_guard();
    let device = state.exp_avgs[0].device();
    let [lr, found_inf] = [step.lr, step.found_inf].map(|tensor| tensor.f_to_device(device));
    let (lr, found_inf) = (lr?, found_inf?);
    if found_inf.f_double_value(&[])? != 0.0 {
        return Ok(());
    }
    let step = AdamWStep { lr: &lr, found_inf: &found_inf, ..step };
    for (i, param) in params.iter().enumerate() {
        let one = AdamWState {
            steps: vec![state.steps[i].shallow_clone()],
            exp_avgs: vec![state.exp_avgs[i].shallow_clone()],
            exp_avg_sqs: vec![state.exp_avg_sqs[i].shallow_clone()],
        };
        let [there, grad] = [param, &grads[i]].map(|tensor| tensor.f_detach()?.f_to_device(device));
        let (there, grad) = (there?, grad?);
        fused_adamw(std::slice::from_ref(&there), &[grad], &one, step)?;
        param.shallow_clone().f_copy_(&there)?;
    }
    Ok(())
}

/// Fills tensors with zeros, in one call.
pub fn zero(tensors: &[Tensor]) -> Result<()> {
    if tensors.is_empty() {
        return Ok(());
    }
    // SAFETY: an array of live tensors.
    check(unsafe { te_zero(ptrs(tensors).as_ptr(), tensors.len()) })
}

/// Multiplies the gradients by `inv_scale` (a float32 scalar) and sets `found_inf` to 1 where one is not finite.
pub fn unscale(grads: &[Tensor], found_inf: &Tensor, inv_scale: &Tensor) -> Result<()> {
    // SAFETY: an array of live tensors and two live scalars.
    check(unsafe { te_unscale(ptrs(grads).as_ptr(), grads.len(), ptr(found_inf), ptr(inv_scale)) })
}

/// Dynamic loss scaling: `scale` times `backoff` after a non-finite step, times `growth` after `interval` finite ones.
/// `scale` is a float32 scalar, `growth_tracker` an int32 scalar.
pub fn update_scale(
    scale: &Tensor,
    growth_tracker: &Tensor,
    found_inf: &Tensor,
    growth: f64,
    backoff: f64,
    interval: i64,
) -> Result<()> {
    // SAFETY: three live scalars; the kernel checks their kinds.
    check(unsafe { te_update_scale(ptr(scale), ptr(growth_tracker), ptr(found_inf), growth, backoff, interval) })
}

/// The L2 norm over all tensors together, a scalar on their device.
pub fn total_norm(tensors: &[Tensor]) -> Result<Tensor> {
    list_norm(tensors, |list, out| {
        // SAFETY: an array of live tensors, a valid out-pointer.
        unsafe { te_total_norm(list.as_ptr(), list.len(), out) }
    })
}

/// Scales the tensors so that their norm together is at most `max_norm`
/// (`torch.nn.utils.clip_grad_norm_`); returns the norm before.
pub fn clip_by_norm(tensors: &[Tensor], max_norm: f64) -> Result<Tensor> {
    list_norm(tensors, |list, out| {
        // SAFETY: an array of live tensors, a valid out-pointer.
        unsafe { te_clip_by_norm(list.as_ptr(), list.len(), max_norm, out) }
    })
}

fn list_norm(tensors: &[Tensor], call: impl FnOnce(&[Ptr], *mut Ptr) -> *mut std::ffi::c_char) -> Result<Tensor> {
    if tensors.is_empty() {
        return Err(error!(Argument, "the norm of no tensors"));
    }
    new_tensor(|out| call(&ptrs(tensors), out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// A tenth of everything, and a gradient that is not finite or none.
    fn numbers(found_inf: bool) -> [Tensor; 2] {
        [Tensor::from_slice(&[0.1f64]), Tensor::from(f32::from(u8::from(found_inf)))]
    }

    fn step([lr, found_inf]: &[Tensor; 2]) -> AdamWStep<'_> {
        AdamWStep { lr, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01, found_inf }
    }

    #[test]
    fn adamw_takes_the_textbook_step() {
        let p = [Tensor::from_slice(&[1.0f32, -2.0])];
        let g = [Tensor::from_slice(&[0.5f32, 0.25])];
        let state = AdamWState::new(&p, None);
        fused_adamw(&p, &g, &state, step(&numbers(false))).unwrap();
        // The first bias-corrected step is lr * sign(g), after decay by 1 - lr * weight_decay.
        let expected = Tensor::from_slice(&[0.999f32 - 0.1, -1.998 - 0.1]);
        assert!(p[0].allclose(&expected, 1e-5, 1e-6, false), "{:?}", p[0]);
        assert_eq!(state.steps[0].double_value(&[]), 1.0);
    }

    #[test]
    fn one_parameter_after_the_other_is_the_same_step() {
        tch::manual_seed(1);
        let params = || [Tensor::arange(6, CPU).view([2, 3]), Tensor::from_slice(&[0.5f32; 5])];
        let (together, apart) = (params(), params());
        let states = [&together, &apart].map(|params| AdamWState::new(params, Some(Device::Cpu)));
        let numbers = numbers(false);
        for _ in 0..3 {
            let grads = together.each_ref().map(Tensor::randn_like);
            fused_adamw(&together, &grads, &states[0], step(&numbers)).unwrap();
            elsewhere(&apart, &grads, &states[1], step(&numbers)).unwrap();
        }
        let all = |params: &[Tensor], state: &AdamWState| {
            let lists = [params, &state.exp_avgs, &state.exp_avg_sqs, &state.steps];
            lists.iter().flat_map(|list| list.iter().map(Tensor::copy)).collect::<Vec<_>>()
        };
        let (together, apart) = (all(&together, &states[0]), all(&apart, &states[1]));
        assert!(together.iter().zip(&apart).all(|(a, b)| a.equal(b)), "{together:?} {apart:?}");
        assert_eq!(together[6].double_value(&[]), 3.0);
    }

    #[test]
    fn a_non_finite_gradient_voids_the_step_and_lowers_the_scale() {
        let p = [Tensor::from_slice(&[1.0f32])];
        let g = [Tensor::from_slice(&[f32::INFINITY])];
        let state = AdamWState::new(&p, None);
        let found_inf = Tensor::zeros([], CPU);
        unscale(&g, &found_inf, &Tensor::from(0.5f32)).unwrap();
        assert_eq!(found_inf.double_value(&[]), 1.0);
        for take in [fused_adamw, elsewhere] {
            take(&p, &g, &state, step(&numbers(true))).unwrap();
        }
        assert_eq!((p[0].double_value(&[0]), state.steps[0].double_value(&[])), (1.0, 0.0));
        let (scale, tracker) = (Tensor::from(1024f32), Tensor::zeros([], (Kind::Int, Device::Cpu)));
        update_scale(&scale, &tracker, &found_inf, 2.0, 0.5, 2000).unwrap();
        assert_eq!(scale.double_value(&[]), 512.0);
    }

    #[test]
    fn clipping_bounds_the_norm_over_the_whole_list() {
        let g = [Tensor::from_slice(&[3.0f32]), Tensor::from_slice(&[0.0f32, 4.0])];
        assert_eq!(clip_by_norm(&g, 1.0).unwrap().double_value(&[]), 5.0);
        assert!((total_norm(&g).unwrap().double_value(&[]) - 1.0).abs() < 1e-5);
        let _ = clip_by_norm(&g, 10.0).unwrap();
        assert!((total_norm(&g).unwrap().double_value(&[]) - 1.0).abs() < 1e-5, "a small norm is left alone");
    }

    #[test]
    fn lists_that_do_not_belong_together_are_refused() {
        let p = [Tensor::zeros([2], CPU)];
        let state = AdamWState::new(&p, None);
        assert!(fused_adamw(&p, &[], &state, step(&numbers(false))).is_err());
        let error = fused_adamw(&p, &[Tensor::zeros([3], CPU)], &state, step(&numbers(false))).unwrap_err().to_string();
        assert!(error.contains("[2]") && error.contains("[3]"), "{error}");
        assert!(total_norm(&[]).is_err());
    }
}

"""The same questions inside a network: which expert, layer, adapter or block computes this token?

Contracts, one a level: `Gate.forward(x_TD, context) -> Plan` (which experts compute this token?) with
`Executor.run(x_TD, plan, experts) -> y_TD`, `DepthRouter.decide` (how often does this sequence pass through a
block?), `AdapterRouter.weights` (which adapters compute this token?), `GateHook` (what would a gate say to
other logits?) and `LocalServer` of `core.generation` (how is a model served?). A claim of saved compute is
backed by a counter of executed operations.

| place | question | rows |
|---|---|---|
| `gates` | which experts does this token deserve? | S32 and the rows of each gate |
| `executors` | how is a plan run? | - |
| `bench` | which gate is worth its price? | - |
| `depth` | how deep must this sequence go? | S12, Dr.LLM |
| `depth.duo` | big, small or no feed-forward? | S22, Duo-LLM |
| `testtime` | which experts, now that the prompt is known? | S26, Rewiring Experts |
| `adapters` | which adapter, for this token and this request? | S3, Glider; PHATGOOSE, Arrow |
| `rl` | what does a reward teach a policy that writes? | S7's recipe, by GRPO |
| `serving` | one model, several candidates of a pool | - |

Imports: `core`, and torch from the extra `nn`. Used by: `cli`. Siblings it does not see: `features`,
`policies`, `dispatch`, `datasets`. This file imports no torch, so that a name can be looked up without it.

`registry` is the room's table: a name, and the "module:Class" that it stands for.
"""

from __future__ import annotations

from turnout.core.registry import Registry

TABLE: dict[str, str] = {
    "arrow": "turnout.nn.adapters.arrow:ArrowRouter",
    "attention_aware": "turnout.nn.gates.attention_aware:AttentionAwareGate",
    "attention_k": "turnout.nn.gates.attention_k:AttentionKGate",
    "autonomy": "turnout.nn.gates.autonomy:AutonomyGate",
    "base": "turnout.nn.gates.base:BaseGate",
    "block_ffn": "turnout.nn.gates.block_ffn:BlockFFNGate",
    "compete": "turnout.nn.gates.compete:CompeteGate",
    "deepseek_moe": "turnout.nn.gates.deepseek_moe:DeepSeekMoEGate",
    "dirichlet": "turnout.nn.gates.dirichlet:DirichletGate",
    "drllm": "turnout.nn.depth.drllm.router:DrLLMRouter",
    "duo": "turnout.nn.depth.duo.router:DuoRouter",
    "dynamoe": "turnout.nn.gates.dynamoe:DynaMoEGate",
    "expert_attention": "turnout.nn.gates.expert_attention:ExpertAttentionGate",
    "expert_choice": "turnout.nn.gates.expert_choice:ExpertChoiceGate",
    "fixed_depth": "turnout.nn.depth.fixed:FixedDepth",
    "glider": "turnout.nn.adapters.glider:GliderRouter",
    "hyper": "turnout.nn.gates.hyper:HyperGate",
    "input_domain": "turnout.nn.gates.input_domain:InputDomainGate",
    "local": "turnout.nn.serving.local:LocalModel",
    "loss_free": "turnout.nn.gates.loss_free:LossFreeGate",
    "merged_adapters": "turnout.nn.adapters.merged:MergedAdapters",
    "mixture_of_routers": "turnout.nn.gates.mixture_of_routers:MixtureOfRoutersGate",
    "noisy_top_k": "turnout.nn.gates.noisy_top_k:NoisyTopKGate",
    "null_experts": "turnout.nn.gates.null_experts:NullExpertsGate",
    "oracle_adapter": "turnout.nn.adapters.oracle:OracleAdapter",
    "phatgoose": "turnout.nn.adapters.phatgoose:PhatgooseRouter",
    "random_skip": "turnout.nn.depth.random_skip:RandomSkip",
    "rectify": "turnout.nn.gates.rectify:RectifyGate",
    "recurrent": "turnout.nn.gates.recurrent:RecurrentGate",
    "relu": "turnout.nn.gates.relu:ReLUGate",
    "rewiring": "turnout.nn.testtime.rewiring:Rewiring",
    "rex": "turnout.nn.gates.rex:RexGate",
    "s2moe": "turnout.nn.gates.s2moe:S2MoEGate",
    "sam": "turnout.nn.gates.sam:SAMGate",
    "similarity_aware": "turnout.nn.gates.similarity_aware:SimilarityAwareGate",
    "single_adapter": "turnout.nn.adapters.single:SingleAdapter",
    "sinkhorn": "turnout.nn.gates.sinkhorn:SinkhornGate",
    "smear": "turnout.nn.gates.smear:SmearGate",
    "smoe_dropout": "turnout.nn.gates.smoe_dropout:SMoEDropoutGate",
    "soft": "turnout.nn.gates.soft:SoftGate",
    "sparse_mixer": "turnout.nn.gates.sparse_mixer:SparseMixerGate",
    "sparse_transport_choice": "turnout.nn.gates.sparse_transport_choice:SparseTransportChoiceGate",
    "speech": "turnout.nn.gates.speech:SpeechMoEGate",
    "stable": "turnout.nn.gates.stable:StableGate",
    "switch": "turnout.nn.gates.switch:SwitchGate",
    "thor": "turnout.nn.gates.thor:ThorGate",
    "timestep_choice": "turnout.nn.gates.timestep_choice:TimestepChoiceGate",
    "top_k": "turnout.nn.gates.top_k:TopKGate",
    "top_p": "turnout.nn.gates.top_p:TopPGate",
    "upcycled": "turnout.nn.gates.upcycled:UpcycledGate",
    "vq": "turnout.nn.gates.vq:VQGate",
}
"""Names of gates, routers and servers inside a model."""

registry = Registry("nn", TABLE)
"""The room's names; third parties add theirs through the entry points `turnout.nn`."""

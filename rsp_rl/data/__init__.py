"""Where problems come from: training sets, benchmarks, prompt templates."""

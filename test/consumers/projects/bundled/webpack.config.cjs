module.exports = {
  mode: "production",
  target: "node22",
  entry: "./program.mjs",
  output: { path: `${__dirname}/out`, filename: "webpack.cjs" }
}

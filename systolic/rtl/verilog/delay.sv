// DEPTH registers in a row: what enters on cycle t stands at the end on cycle t + DEPTH.

`default_nettype none

module delay #(
    parameter int WIDTH = 8,
    parameter int DEPTH = 1
) (
    input  wire             clk,
    input  wire             reset,
    input  wire [WIDTH-1:0] in,
    output wire [WIDTH-1:0] out
);
    if (DEPTH == 0) begin : none
        assign out = in;
        wire unused = &{1'b0, clk, reset};
    end else begin : line
        logic [DEPTH*WIDTH-1:0] stages;
        wire  [(DEPTH+1)*WIDTH-1:0] moved = {stages, in};

        always_ff @(posedge clk) begin
            if (reset) stages <= '0;
            else stages <= moved[DEPTH*WIDTH-1:0];
        end
        assign out = moved[DEPTH*WIDTH+:WIDTH];
    end
endmodule

`default_nettype wire

module github.com/moat-gateway/moat/bench

go 1.26.0

require (
	github.com/jub0bs/cors v1.0.5
	github.com/moat-gateway/moat v0.0.0
	github.com/rs/cors v1.11.1
	golang.org/x/net v0.62.0
)

require golang.org/x/text v0.43.0 // indirect

replace github.com/moat-gateway/moat => ../

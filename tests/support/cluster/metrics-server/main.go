// Command metrics-server is metrics-server with the descriptions of its types from the Kubernetes that it is built with:
// those that it brings are of an older one.
package main

import (
	"log"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	generated "k8s.io/kubernetes/pkg/generated/openapi"
	"sigs.k8s.io/metrics-server/cmd/metrics-server/app/options"
	"sigs.k8s.io/metrics-server/pkg/api"
)

func main() {
	told := options.NewOptions()
	flags := pflag.NewFlagSet(os.Args[0], pflag.ExitOnError)
	sections := told.Flags()
	for _, section := range sections.FlagSets {
		flags.AddFlagSet(section)
	}
	check(flags.Parse(os.Args[1:]))
	for _, err := range told.Validate() {
		log.Fatal(err)
	}
	config, err := told.ServerConfig()
	check(err)
	namer := openapi.NewDefinitionNamer(api.Scheme)
	config.Apiserver.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(generated.GetOpenAPIDefinitions, namer)
	config.Apiserver.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(generated.GetOpenAPIDefinitions, namer)
	server, err := config.Complete()
	check(err)
	check(server.RunUntil(genericapiserver.SetupSignalHandler()))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
